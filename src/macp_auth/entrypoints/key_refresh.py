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

    @asynccontextmanager
    async def lifespan(self, _app: Litestar) -> AsyncIterator[None]:
        """Read the keys before the first request, keep them fresh, and close the signer at the end."""
        try:
            await self._keys.refresh(time.time())
            self._log_signing_key()
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
            before = self._keys.keys
            await self._refresh()
            self._log_change(before)

    def _pause(self, now: float) -> float:
        pause = self._interval * random.uniform(0.8, 1)  # noqa: S311 - spreads load, hides nothing
        next_change = self._keys.keys.schedule.next_change
        return pause if next_change is None else max(_SHORTEST_PAUSE, min(pause, next_change - now))

    async def _refresh(self) -> None:
        try:
            await self._keys.refresh(time.time())
        except SignerError as error:
            _log.error(
                "KEYS CAN'T BE READ; the last good ones stay", reason=type(error).__name__, detail=str(error)
            )
            self._keys.reschedule(time.time())
        except Exception:  # noqa: BLE001 - a plugin may raise anything; the keys in force must stay fresh
            _log.exception("KEYS CAN'T BE READ; the last good ones stay")
            self._keys.reschedule(time.time())

    def _log_change(self, before: KeySet) -> None:
        after = self._keys.keys
        if after is before:
            return
        states = {key.version.kid: key.state.value for key in after.schedule.keys}
        _log.info("published keys", states=states)
        if after.signing.version != before.signing.version:
            self._log_signing_key()

    def _log_signing_key(self) -> None:
        signing = self._keys.keys.signing.version
        _log.info("signing key", source=self._source, alg=signing.algorithm.value, kid=signing.kid)
