"""Keeps the key ring fresh, in the background: no request ever waits for a backend's keys."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

import structlog

from macp_auth.application.background import in_background
from macp_auth.application.key_ring import KeyRing
from macp_auth.domain.errors import SignerError, reason_of
from macp_auth.domain.key_set import KeySet

_SHORTEST_PAUSE = 0.05  # seconds; also when a change is due this instant
_WITHDRAWN_PAUSE = 1.0  # seconds; the least between two readings of which the second was asked for
_FIRST_KEYS_PAUSE = 1.0  # seconds; without keys nothing works, so they are asked for more often
_KEPT = "keys can't be read; the last good ones stay"
_NONE_YET = "keys can't be read; there are none yet"
_log = structlog.get_logger()


class KeyRefresher:
    """Reads the signer's keys again and again, and logs what changed.

    Args:
        keys: the ring to keep fresh.
        interval: the longest time between two readings, in seconds. A reading comes up to a fifth
            sooner, so that replicas that started together spread; when a key's state is due to
            change; and at once when the signer turns out not to have the version in force.
        source: the signer's name, for the log.
        clock: seconds that only ever go forward.
        now: seconds since the epoch, by which the schedule of keys goes.
    """

    def __init__(
        self,
        keys: KeyRing,
        interval: float,
        *,
        source: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self.interval = interval
        self._source = source
        self._clock = clock
        self._now = now
        self._last_read: float | None = None
        self.failure: str | None = None
        """Why the last reading failed, in one word that may be shown; None if it did not."""

    @property
    def age(self) -> float | None:
        """Seconds since the keys were last read; None if they never were."""
        return None if self._last_read is None else self._clock() - self._last_read

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the keys before the first request, keep them fresh, and close the signer at the end.

        Where they can't be read yet, the service starts all the same: it answers 503 where it needs a
        key, and goes on trying. A worker that replaces a lost one must not bring down the others.
        """
        try:
            await self._refresh()
            async with in_background(self._refresh_forever()):
                yield
        finally:
            await self._keys.aclose()

    async def _refresh_forever(self) -> NoReturn:
        while True:
            pause = self._pause(self._now())
            least = min(pause, _WITHDRAWN_PAUSE)
            await asyncio.sleep(least)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause - least):
                    await self._keys.withdrawn.wait()
            self._keys.withdrawn.clear()
            await self._refresh()

    def _pause(self, now: float) -> float:
        if (keys := self._keys.in_force) is None:
            return min(self.interval, _FIRST_KEYS_PAUSE)
        pause = self.interval * random.uniform(0.8, 1)  # noqa: S311 - spreads load, hides nothing
        next_change = keys.schedule.next_change
        return pause if next_change is None else max(_SHORTEST_PAUSE, min(pause, next_change - now))

    async def _refresh(self) -> None:
        before = self._keys.in_force
        failed = _NONE_YET if before is None else _KEPT
        try:
            await self._keys.refresh(self._now())
        except SignerError as error:
            self.failure = reason_of(error)
            _log.error(failed, reason=type(error).__name__, detail=str(error))
            self._keys.reschedule(self._now())
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything; keys must stay fresh
            self.failure = reason_of(error)
            _log.exception(failed)
            self._keys.reschedule(self._now())
        else:
            if self.failure is not None:
                _log.info("keys can be read again")
            self.failure = None
            self._last_read = self._clock()
        self._log_change(before)

    def _log_change(self, before: KeySet | None) -> None:
        after = self._keys.in_force
        if after is None:
            return
        if before is not None and after.states != before.states:
            _log.info("published keys", states=after.states)
        signing = after.signing.version
        if before is None or signing.kid != before.signing.version.kid:
            _log.info("signing key", source=self._source, alg=signing.algorithm.value, kid=signing.kid)
