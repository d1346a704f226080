"""The clock for tokens and keys; it compares the wall clock with a steady clock."""

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
    # Linux's monotonic clock stops while the machine sleeps; its wall clock does not.
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds of a clock that can't be set and continues while the machine sleeps."""


class TrustedClock:
    """The time for tokens and for keys; no time for tokens after a large step of the wall clock.

    Args:
        tolerated: the largest step after which tokens are issued, in seconds.
        accept_after: seconds without another step after which a larger step is accepted; None for never.
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
        """Seconds by which the wall clock was ahead of where it should be at the last check."""
        return self._monitor.offset

    def is_trusted(self) -> bool:
        """Whether tokens may be issued."""
        self._check(self._wall(), self._steady())
        return self._monitor.trusted

    def now(self) -> TimeInterval:
        """Return the time for a token.

        Raises:
            ClockStepped: the clock is not trusted.
        """
        wall, steady = self._wall(), self._steady()
        self._check(wall, steady)
        return self._monitor.interval(wall, steady)

    def adjusted(self) -> float:
        """Return the time for the key schedule, in seconds since the epoch."""
        return self._monitor.time(self._steady())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Check in the background, so that a step is detected without a request."""
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
            _log.warning("clock step accepted", seconds=round(settled, 3))
        if trusted and not self._monitor.trusted:
            _log.error("clock stepped; no tokens until it is trusted again", seconds=round(self.offset, 3))
        elif self._monitor.trusted and not trusted:
            _log.info("clock trusted again", offset=round(self.offset, 3))
