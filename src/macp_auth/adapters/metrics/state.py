"""How a worker is: what it writes once a second, for the process that serves the metrics."""

from __future__ import annotations

from pathlib import Path

import msgspec
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
    """All that may differ from one worker to the next, and is no count."""

    at: float
    """When it was so, by the machine's monotonic clock, which all processes share."""
    not_ready: str | None
    """Why it can't mint, in one word; None if it can."""
    clock_drift: float
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


def write_state(path: Path, state: WorkerState) -> None:
    """Put ``state`` into ``path``, so that a reader finds the old one or the new one, and never half."""
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(state))
    new.replace(path)


def read_state(path: Path) -> WorkerState | None:
    """Return what ``path`` holds; None if its worker has not written yet."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=WorkerState)
    except FileNotFoundError:
        return None
