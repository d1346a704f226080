"""Keeps the key ring fresh, in the background: no request ever waits for a backend's keys."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from litestar import Litestar

from macp_auth.domain.errors import SignerError
from macp_auth.domain.keyring import KeyRing, KeySet

_SHORTEST_PAUSE = 0.05  # seconds; also when a change is due this instant
_FIRST_KEYS_PAUSE = 1.0  # seconds; without keys nothing works, so they are asked for more often
_UNREADABLE = "KEYS CAN'T BE READ; the last good ones stay"
_log = structlog.get_logger()


class KeyRefresher:
    """Reads the signer's keys again and again, and logs what changed.

    Args:
        keys: the ring to keep fresh.
        interval: the longest time between two readings, in seconds. A reading comes up to a fifth
            sooner, so that replicas that started together spread, and also when a key's state is
            due to change.
        source: the signer's name, for the log.
    """

    def __init__(self, keys: KeyRing, interval: float, *, source: str) -> None:
        self._keys = keys
        self._interval = interval
        self._source = source
        self._failed = False

    @asynccontextmanager
    async def lifespan(self, _app: Litestar) -> AsyncIterator[None]:
        """Read the keys before the first request, keep them fresh, and close the signer at the end.

        Where they can't be read yet, the service starts all the same: it answers 503 where it needs a
        key, and goes on trying. A worker that replaces a lost one must not bring down the others.
        """
        try:
            await self._refresh()
            refreshing = asyncio.create_task(self._refresh_for_ever())
            try:
                yield
            finally:
                refreshing.cancel()
                with suppress(asyncio.CancelledError):
                    await refreshing
        finally:
            await self._keys.aclose()

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._pause(time.time()))
            await self._refresh()

    def _pause(self, now: float) -> float:
        if (keys := self._keys.in_force) is None:
            return min(self._interval, _FIRST_KEYS_PAUSE)
        pause = self._interval * random.uniform(0.8, 1)  # noqa: S311 - spreads load, hides nothing
        next_change = keys.schedule.next_change
        return pause if next_change is None else max(_SHORTEST_PAUSE, min(pause, next_change - now))

    async def _refresh(self) -> None:
        before = self._keys.in_force
        try:
            await self._keys.refresh(time.time())
        except SignerError as error:
            self._failed = True
            _log.error(_UNREADABLE, reason=type(error).__name__, detail=str(error))
            self._keys.reschedule(time.time())
        except Exception:  # noqa: BLE001 - a plugin may raise anything; the keys in force must stay fresh
            self._failed = True
            _log.exception(_UNREADABLE)
            self._keys.reschedule(time.time())
        else:
            if self._failed:
                _log.info("keys can be read again")
            self._failed = False
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
