"""The state of a whole service, over all its workers, for the status page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from macp_auth.domain.rotation import Timing
from macp_auth.domain.worker_state import WorkerState


class Requests(Struct, frozen=True, kw_only=True):
    """The requests for tokens of one caller, since the service started."""

    caller: str | None
    """Its name in the callers file; None for all callers."""
    minted: int
    refused: int
    failed: int
    recently_minted: int | None
    """How many of the minted tokens are of the last seconds; None if there was no earlier reading."""


class Worker(Struct, frozen=True):
    """One worker, as the service sees it."""

    state: WorkerState
    not_ready: str | None
    """The reason why it can't mint, or that it is silent; None if it can."""


class ServiceState(Struct, frozen=True, kw_only=True):
    """The state of a service at a time."""

    at: float
    """When it was read, in seconds since the epoch."""
    started_at: float
    """By the wall clock then."""
    up_seconds: float
    """How long it has run, by a clock that can't be set."""
    signer: str
    timing: Timing
    restarts: int
    """Number of workers that died and were replaced."""
    workers: Sequence[Worker | None]
    """By index; None for one that has not reported yet."""
    requests: Sequence[Requests]
    """First those of all callers."""
    recent_seconds: float | None
    """How long ago the earlier reading was."""

    @property
    def newest(self) -> WorkerState | None:
        """The state of the worker that read its keys last; None if none has read any."""
        read = {
            worker.state.keys_read_at: worker.state
            for worker in self.workers
            if worker is not None and worker.state.keys_read_at is not None
        }
        return read[max(read)] if read else None

    @property
    def keys_differ(self) -> bool:
        """Whether two workers publish different keys, as while a change spreads."""
        published = [
            [(key.kid, key.state) for key in worker.state.keys]
            for worker in self.workers
            if worker is not None and worker.state.keys
        ]
        return any(keys != published[0] for keys in published)

    @property
    def not_ready(self) -> Mapping[int, str]:
        """The reason of each worker that can't mint, by its index."""
        reasons = {
            index: "starting" if worker is None else worker.not_ready
            for index, worker in enumerate(self.workers)
        }
        return {index: reason for index, reason in reasons.items() if reason is not None}
