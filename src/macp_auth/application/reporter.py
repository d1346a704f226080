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
from macp_auth.domain.key_set import KeySet
from macp_auth.domain.signer import Signer
from macp_auth.domain.worker_state import AuditHead, PublishedKey, WorkerState

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
    audit_head: Callable[[], AuditHead | None]


class Reporter:
    """Passes the state of a worker to ``write``.

    Args:
        watched: the worker.
        write: stores the state; must not raise.
    """

    def __init__(self, watched: Watched, write: Callable[[WorkerState], None]) -> None:
        self._watched = watched
        self._write = write
        self._keys: KeySet | None = None
        self._published: list[PublishedKey] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Report in the background, and once more at the end to keep the signer's last counts."""
        try:
            async with in_background(self._report_forever()):
                yield
        finally:
            self._write(self._state())

    async def _report_forever(self) -> NoReturn:
        while True:
            self._write(self._state())
            await asyncio.sleep(REPORT_INTERVAL_SECONDS)

    def _state(self) -> WorkerState:
        watched = self._watched
        age = watched.refresher.age
        return WorkerState(
            at=time.monotonic(),
            not_ready=watched.readiness.reason,
            clock_offset=watched.clock.offset,
            keys=self._published_keys(),
            keys_read_at=None if age is None else time.time() - age,
            signer=dict(watched.signer.statistics()),
            connections={name: len(each) for name, each in watched.connections.items()},
            certificates=dict(watched.certificates()),
            failing_issuers=dict(watched.failing_issuers()),
            callers_failing=None if watched.callers is None else watched.callers.failing,
            audit_head=watched.audit_head(),
        )

    def _published_keys(self) -> list[PublishedKey]:
        keys = self._watched.keys
        if self._keys is not keys.active:  # thousands of versions take milliseconds
            self._keys = keys.active
            self._published = [
                PublishedKey.of(each) for each in keys.lifetimes(self._watched.clock.adjusted())
            ]
        return self._published
