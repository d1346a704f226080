"""The state of a worker process: what it reports once a second, for the metrics."""

from __future__ import annotations

from msgspec import Struct

from macp_auth.domain.certificates import Validity
from macp_auth.domain.statistics import Distribution


class PublishedKey(Struct, frozen=True):
    """A key as this worker publishes it; times in seconds since the epoch."""

    kid: str
    algorithm: str
    state: str
    created_at: float | None
    next_change: float | None


class WorkerState(Struct, frozen=True, kw_only=True):
    """What may differ from one worker to the next, and is not a count."""

    at: float
    """When it was so, by the machine's monotonic clock, which all processes share."""
    not_ready: str | None
    """Why it can't mint, in one word; None if it can."""
    clock_offset: float
    """Seconds by which the wall clock is ahead of where it should be."""
    keys: list[PublishedKey]
    keys_read_at: float | None
    """When it read the keys last, in seconds since the epoch; None if it never did."""
    signer: dict[str, float | Distribution]
    """What the signer tells of its work."""
    connections: int = 0
    """How many are open."""
    certificates: dict[str, Validity] = {}
    """With which it speaks TLS, and those that it trusts, by what they are for."""
