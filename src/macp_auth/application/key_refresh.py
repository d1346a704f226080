"""Refreshes the key ring in the background, so that no request waits for the backend's keys."""

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

_SHORTEST_PAUSE = 0.05  # seconds; also when a change is due now
_WITHDRAWN_PAUSE = 1.0  # seconds; the minimum before a reading on request
_FIRST_KEYS_PAUSE = 1.0  # seconds; nothing works without keys, so try more often
_KEPT = "cannot read keys; keeping the last good ones"
_NONE_YET = "cannot read keys; none loaded yet"
_log = structlog.get_logger()


class KeyRefresher:
    """Reads the signer's keys periodically and logs changes.

    Args:
        keys: the ring to keep fresh.
        interval: the longest time between two readings, in seconds. A reading comes up to a fifth
            earlier, so that replicas that started together spread out; when a key's state is due to
            change; and at once when the signer no longer has the signing version.
        source: the signer's name, for the log.
        clock: monotonic seconds.
        now: seconds since the epoch, for the key schedule.
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
        """The reason why the last reading failed, safe to show; None if it succeeded."""

    @property
    def age(self) -> float | None:
        """Seconds since the keys were last read; None if never."""
        return None if self._last_read is None else self._clock() - self._last_read

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the keys before the first request, refresh them, and close the signer at the end.

        If the first reading fails, the service starts anyway, answers 503 where it needs a key, and keeps
        trying. A replacement worker must not bring down the others.
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
        if (keys := self._keys.active) is None:
            return min(self.interval, _FIRST_KEYS_PAUSE)
        pause = self.interval * random.uniform(0.8, 1)  # noqa: S311 - spreads load; not a secret
        next_change = keys.schedule.next_change
        return pause if next_change is None else max(_SHORTEST_PAUSE, min(pause, next_change - now))

    async def _refresh(self) -> None:
        before = self._keys.active
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
                _log.info("keys read again")
            self.failure = None
            self._last_read = self._clock()
        self._log_change(before)

    def _log_change(self, before: KeySet | None) -> None:
        after = self._keys.active
        if after is None:
            return
        if before is not None and after.states != before.states:
            _log.info("published keys", states=after.states)
        signing = after.signing.version
        if before is None or signing.kid != before.signing.version.kid:
            _log.info("signing key", source=self._source, alg=signing.algorithm.value, kid=signing.kid)
