"""Writes once a second how a worker is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from litestar import Litestar

from macp_auth.domain.keyring import KeyRing
from macp_auth.domain.signer import Signer
from macp_auth.domain.statistics import sound_statistics
from macp_auth.entrypoints.key_refresh import KeyRefresher
from macp_auth.entrypoints.metrics.state import PublishedKey, WorkerState, write_state
from macp_auth.entrypoints.readiness import Readiness

REPORT_SECONDS = 1.0


class Reporter:
    """Asks the parts of a worker how they are; none of them knows that it is asked.

    Args:
        path: where to write it.
        keys: what is published.
        refresher: when the keys were read.
        readiness: whether the worker can mint.
        signer: what it tells of its work.
    """

    def __init__(
        self, path: Path, keys: KeyRing, refresher: KeyRefresher, readiness: Readiness, signer: Signer
    ) -> None:
        self._path = path
        self._keys = keys
        self._refresher = refresher
        self._readiness = readiness
        self._signer = signer

    @asynccontextmanager
    async def lifespan(self, _app: Litestar) -> AsyncIterator[None]:
        """Write in the background, and a last time at the end: what the signer counted is kept."""
        reporting = asyncio.create_task(self._report_for_ever())
        try:
            yield
        finally:
            reporting.cancel()
            with suppress(asyncio.CancelledError):
                await reporting
            self._report()

    async def _report_for_ever(self) -> None:
        while True:
            self._report()
            await asyncio.sleep(REPORT_SECONDS)

    def _report(self) -> None:
        with suppress(OSError):  # no room: what is written last grows old, which the reader notices
            write_state(self._path, self._state(time.time()))

    def _state(self, now: float) -> WorkerState:
        age = self._refresher.age
        return WorkerState(
            at=now,
            not_ready=self._readiness.reason,
            keys=self._published(),
            keys_read_at=None if age is None else now - age,
            signer=sound_statistics(self._signer.statistics()),
        )

    def _published(self) -> list[PublishedKey]:
        in_force = self._keys.in_force
        return [
            PublishedKey(
                kid=key.version.kid,
                algorithm=key.version.algorithm.value,
                state=key.state.value,
                created_at=key.version.created_at,
                next_change=key.next_change,
            )
            for key in (in_force.schedule.keys if in_force else ())
        ]
