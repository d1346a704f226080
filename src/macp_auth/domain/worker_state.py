"""The state that a worker process reports once a second for the metrics."""

from __future__ import annotations

from msgspec import Struct

from macp_auth.domain.certificates import Validity
from macp_auth.domain.statistics import Distribution


class PublishedKey(Struct, frozen=True):
    """A published key; times in seconds since the epoch."""

    kid: str
    algorithm: str
    state: str
    created_at: float | None
    next_change: float | None


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
