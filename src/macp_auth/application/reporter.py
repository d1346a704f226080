"""Reports the state of this worker once a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sized
from contextlib import asynccontextmanager
from typing import NoReturn

from msgspec import Struct

from macp_auth.application.background import in_background
from macp_auth.application.callers_refresh import CallersRefresher
from macp_auth.application.clock import TrustedClock
from macp_auth.application.key_refresh import KeyRefresher
from macp_auth.application.key_ring import KeyRing
from macp_auth.application.readiness import Readiness
from macp_auth.domain.certificates import Validity
from macp_auth.domain.signer import Signer
from macp_auth.domain.worker_state import PublishedKey, WorkerState

REPORT_INTERVAL_SECONDS = 1.0


class Watched(Struct, frozen=True):
    """The parts of a worker whose state is reported."""

    keys: KeyRing
    refresher: KeyRefresher
    readiness: Readiness
    signer: Signer
    clock: TrustedClock
    connections: Mapping[str, Sized]
    """Of each listener, by its name."""
    certificates: Callable[[], Mapping[str, Validity]]
    callers: CallersRefresher | None
    failing_issuers: Callable[[], Mapping[str, bool]]


class Reporter:
    """Passes the state of a worker to ``write``.

    Args:
        watched: the worker.
        write: stores the state; must not raise.
    """

    def __init__(self, watched: Watched, write: Callable[[WorkerState], None]) -> None:
        self._watched = watched
        self._write = write

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Report in the background, and once more at the end to keep the signer's last counts."""
        try:
            async with in_background(self._report_forever()):
                yield
        finally:
            self._write(_state(self._watched))

    async def _report_forever(self) -> NoReturn:
        while True:
            self._write(_state(self._watched))
            await asyncio.sleep(REPORT_INTERVAL_SECONDS)


def _state(watched: Watched) -> WorkerState:
    age = watched.refresher.age
    return WorkerState(
        at=time.monotonic(),
        not_ready=watched.readiness.reason,
        clock_offset=watched.clock.offset,
        keys=_published(watched.keys),
        keys_read_at=None if age is None else time.time() - age,
        signer=dict(watched.signer.statistics()),
        connections={name: len(each) for name, each in watched.connections.items()},
        certificates=dict(watched.certificates()),
        failing_issuers=dict(watched.failing_issuers()),
        callers_failing=None if watched.callers is None else watched.callers.failing,
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
        for key in (keys.active.schedule.keys if keys.active else ())
    ]
