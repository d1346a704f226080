"""The state that a worker process reports once a second for the metrics."""

from __future__ import annotations

from msgspec import Struct

from macp_auth.domain.certificates import Validity
from macp_auth.domain.rotation import Lifetime
from macp_auth.domain.statistics import Distribution


class PublishedKey(Struct, frozen=True):
    """A published key; times in seconds since the epoch."""

    kid: str
    algorithm: str
    state: str
    created_at: float | None
    next_change: float | None
    signs_from: float | None = None
    signs_until: float | None = None
    leaves: float | None = None
    """When it leaves the JWKS."""

    @classmethod
    def of(cls, lifetime: Lifetime) -> PublishedKey:
        """Return the key with this lifetime."""
        status = lifetime.status
        return cls(
            kid=status.version.kid,
            algorithm=status.version.algorithm.value,
            state=status.state.value,
            created_at=status.version.created_at,
            next_change=status.next_change,
            signs_from=lifetime.signs_from,
            signs_until=lifetime.signs_until,
            leaves=lifetime.leaves,
        )


class AuditHead(Struct, frozen=True):
    """The last line that a process wrote to the audit log."""

    writer: str
    """A random id of the process."""
    seq: int = 0
    """The number of the line, from 1; 0 if there is none."""
    sha256: str | None = None
    """The hexadecimal SHA-256 of the line without its end."""


class WorkerState(Struct, frozen=True, kw_only=True):
    """The state of one worker, without its counters."""

    at: float
    """Time of the report by the machine's monotonic clock, which all processes share."""
    not_ready: str | None
    """The reason why it can't mint; None if it can."""
    clock_offset: float
    """Seconds by which the wall clock is ahead of where it should be."""
    keys: list[PublishedKey]
    keys_read_at: float | None
    """When it last read the keys, in seconds since the epoch; None if never."""
    signer: dict[str, float | Distribution]
    """The signer's statistics."""
    connections: dict[str, int] = {}
    """Number of open connections of each listener."""
    callers_failing: bool | None = None
    """Whether the callers file is unusable now; None without a callers file."""
    failing_issuers: dict[str, bool] = {}
    """Whether the keys of each issuer of callers' JWTs could not be read last time, by its name."""
    certificates: dict[str, Validity] = {}
    """The validity of its TLS certificates and trusted authorities, by use."""
    audit_head: AuditHead | None = None
    """None without an audit log."""
