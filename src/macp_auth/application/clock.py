"""The clocks of this machine, held against each other: for each token, and every second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NoReturn

import structlog

from macp_auth.application.background import in_background
from macp_auth.domain.clock import ClockMonitor, TimeInterval

CHECK_INTERVAL_SECONDS = 1.0
_log = structlog.get_logger()

steady_clock: Callable[[], float] = (
    # Linux's monotonic clock stands still while the machine sleeps, and its wall clock does not.
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds since some time, that nobody can set, and that pass while the machine sleeps, too."""


class TrustedClock:
    """The time for tokens and for keys, and none for tokens after a step of the wall clock.

    Args:
        tolerated: the largest step after which there is one, in seconds.
        accept_after: so many seconds without another step, and a larger one is believed; None, never.
        wall: the wall clock, in seconds since the epoch.
        steady: the steady clock, in seconds.
    """

    def __init__(
        self,
        *,
        tolerated: float,
        accept_after: float | None,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady_clock,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._monitor = ClockMonitor(wall(), steady(), tolerated=tolerated, accept_after=accept_after)

    @property
    def offset(self) -> float:
        """Seconds by which the wall clock is ahead of where it should be, as of the last second."""
        return self._monitor.offset

    def is_trusted(self) -> bool:
        """Whether there is a time for tokens."""
        self._check(self._wall(), self._steady())
        return self._monitor.trusted

    def now(self) -> TimeInterval:
        """Return the time for a token.

        Raises:
            ClockStepped: there is none.
        """
        wall, steady = self._wall(), self._steady()
        self._check(wall, steady)
        return self._monitor.interval(wall, steady)

    def adjusted(self) -> float:
        """Return the time for the schedule of keys, in seconds since the epoch."""
        return self._monitor.time(self._steady())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Check in the background, so that a step is seen without a request."""
        async with in_background(self._check_forever()):
            yield

    async def _check_forever(self) -> NoReturn:
        while True:
            self.is_trusted()
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)

    def _check(self, wall: float, steady: float) -> None:
        trusted = self._monitor.trusted
        settled = self._monitor.check(wall, steady)
        if settled:
            _log.warning("clock step believed", seconds=round(settled, 3))
        if trusted and not self._monitor.trusted:
            _log.error("clock stepped; no tokens until it is trusted again", seconds=round(self.offset, 3))
        elif self._monitor.trusted and not trusted:
            _log.info("clock trusted again", offset=round(self.offset, 3))
