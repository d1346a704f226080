"""Writes once a second how a worker is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NoReturn

from litestar import Litestar
from msgspec import Struct

from macp_auth.adapters.metrics.state import PublishedKey, WorkerState, write_state
from macp_auth.application.background import in_background
from macp_auth.application.clock import TrustedClock
from macp_auth.application.key_refresh import KeyRefresher
from macp_auth.application.readiness import Readiness
from macp_auth.domain.certificates import Validity
from macp_auth.domain.keyring import KeyRing
from macp_auth.domain.signer import Signer
from macp_auth.entrypoints.server.connections import Connections

REPORT_SECONDS = 1.0


class Watched(Struct, frozen=True):
    """The parts of a worker that are asked how they are; none of them knows."""

    keys: KeyRing
    refresher: KeyRefresher
    readiness: Readiness
    signer: Signer
    clock: TrustedClock
    connections: Connections
    certificates: Callable[[], Mapping[str, Validity]]


class Reporter:
    """Writes how a worker is.

    Args:
        path: where to.
        watched: the worker.
    """

    def __init__(self, path: Path, watched: Watched) -> None:
        self._path = path
        self._watched = watched

    @asynccontextmanager
    async def lifespan(self, _app: Litestar) -> AsyncIterator[None]:
        """Write in the background, and a last time at the end: what the signer counted is kept."""
        try:
            async with in_background(self._report_for_ever()):
                yield
        finally:
            self._report()

    async def _report_for_ever(self) -> NoReturn:
        while True:
            self._report()
            await asyncio.sleep(REPORT_SECONDS)

    def _report(self) -> None:
        with suppress(OSError):  # no room: what was written last grows old, which the reader notices
            write_state(self._path, _state(self._watched))


def _state(watched: Watched) -> WorkerState:
    age = watched.refresher.age
    return WorkerState(
        at=time.monotonic(),
        not_ready=watched.readiness.reason,
        clock_drift=watched.clock.drift,
        keys=_published(watched.keys),
        keys_read_at=None if age is None else time.time() - age,
        signer=dict(watched.signer.statistics()),
        connections=len(watched.connections),
        certificates=dict(watched.certificates()),
    )


def _published(keys: KeyRing) -> list[PublishedKey]:
    return [
        PublishedKey(
            kid=key.version.kid,
            algorithm=key.version.algorithm.value,
            state=key.state.value,
            created_at=key.version.created_at,
            next_change=key.next_change,
        )
        for key in (keys.in_force.schedule.keys if keys.in_force else ())
    ]
