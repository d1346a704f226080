"""Knows whether this process can mint, and says so from memory: no probe ever waits for a backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import structlog
from msgspec import Struct

from macp_auth.application.background import in_background
from macp_auth.application.key_refresh import KeyRefresher
from macp_auth.application.key_ring import KeyRing
from macp_auth.domain.claims import Claims
from macp_auth.domain.errors import ClockStepped, SignerError, reason_of

CHECK_INTERVAL_SECONDS = 1.0
"""From one check to the next; half of it while this process is not ready."""
PROBE_TIMEOUT_SECONDS = 2.5
"""More than a signer's own deadline, usually 2 s, for its error says more than ours. A token signed just
after one check satisfies the next, and the one after that finds the signer hanging: a failure shows after
``2 * CHECK_INTERVAL_SECONDS + PROBE_TIMEOUT_SECONDS`` at most, which must be less than 5 s."""
STALE_READINGS = 3
"""So many intervals without a good reading, and the keys are stale."""

STARTING, TIMEOUT, NO_KEYS, STALE_KEYS = "starting", "timeout", "no-keys", "stale-keys"
AUDIT_LINES_DROPPED = "audit-lines-dropped"
OWN_REASONS = (STARTING, TIMEOUT, NO_KEYS, STALE_KEYS, AUDIT_LINES_DROPPED, ClockStepped.reason)
"""The reasons that are no signer's."""

_log = structlog.get_logger()


class _Trouble(Struct, frozen=True):
    reason: str
    detail: str
    """For the log only: it may be the backend's own text."""
    unexpected: BaseException | None = None


class Readiness:
    """Checks again and again that the signer signs and the keys are fresh.

    While tokens are signed, that is the proof, and a check costs nothing: a signer that is so busy that
    it turns some away is no reason to send all the load to its replicas. When none was signed since
    the last check, a token is signed that was over long ago, and goes nowhere.

    Args:
        keys: the ring that signs.
        refresher: what keeps it fresh.
        probe_claims: what is signed to see whether the signer signs.
        clock_trusted: whether it is known what time it is.
        audit_dropping: whether tokens are minted that the audit log can't tell of.
        check_interval: seconds from one check to the next; half of it while this process is not ready.
        probe_timeout: the seconds that a signature may take to count.
    """

    def __init__(  # noqa: PLR0913 - each is one thing to check
        self,
        keys: KeyRing,
        refresher: KeyRefresher,
        *,
        probe_claims: Callable[[], Claims],
        clock_trusted: Callable[[], bool] = lambda: True,
        audit_dropping: Callable[[], bool] = lambda: False,
        check_interval: float = CHECK_INTERVAL_SECONDS,
        probe_timeout: float = PROBE_TIMEOUT_SECONDS,
    ) -> None:
        self._keys = keys
        self._refresher = refresher
        self._probe_claims = probe_claims
        self._clock_trusted = clock_trusted
        self._audit_dropping = audit_dropping
        self._check_interval = check_interval
        self._probe_timeout = probe_timeout
        self._signed = 0
        self._logged: set[str] = set()
        self.reason: str | None = STARTING
        """Why this process can't mint, in one word that may be shown; None if it can."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Check in the background; until the first check has an outcome, the reason is ``starting``."""
        async with in_background(self._check_forever()):
            yield

    async def _check_forever(self) -> NoReturn:
        while True:
            self._note(await self._check())
            await asyncio.sleep(self._check_interval if self.reason is None else self._check_interval / 2)

    async def _check(self) -> _Trouble | None:
        if not self._clock_trusted():
            return _Trouble(ClockStepped.reason, "the wall clock was stepped")
        if self._refresher.age is None:
            return _Trouble(self._refresher.failure or NO_KEYS, "the signer's keys have not been read yet")
        before, self._signed = self._signed, self._keys.signed
        if before == self._signed and (trouble := await self._probe()) is not None:
            return trouble
        age = self._refresher.age
        if age > STALE_READINGS * self._refresher.interval:
            return _Trouble(STALE_KEYS, f"the signer's keys were last read {age:.0f} s ago")
        if self._audit_dropping():
            return _Trouble(AUDIT_LINES_DROPPED, "the audit log can't be written, and its memory is full")
        return None

    async def _probe(self) -> _Trouble | None:
        # A task of its own: a plugin may hang on in spite of a cancellation, or raise one.
        probe = asyncio.create_task(self._keys.self_test(self._probe_claims()))
        probe.add_done_callback(_retrieve)
        try:
            done, _ = await asyncio.wait({probe}, timeout=self._probe_timeout)
        finally:
            probe.cancel()
        if not done:
            return _Trouble(TIMEOUT, f"no signature within {self._probe_timeout:g} s")
        match _retrieve(probe):
            case None:
                return None
            case SignerError() as error:
                return _Trouble(reason_of(error), str(error))
            case error:
                return _Trouble(reason_of(error), type(error).__name__, error)

    def _note(self, trouble: _Trouble | None) -> None:
        before, self.reason = self.reason, None if trouble is None else trouble.reason
        if trouble is None:
            self._logged.clear()
            if before is not None:
                _log.info("ready")
        elif trouble.reason not in self._logged:  # two may alternate, as with a circuit breaker
            self._logged.add(trouble.reason)
            _log.error("not ready", reason=trouble.reason, detail=trouble.detail, exc_info=trouble.unexpected)


def _retrieve(probe: asyncio.Task[None]) -> BaseException | None:
    """Return what ended it, so that asyncio does not complain that nobody asked."""
    return asyncio.CancelledError() if probe.cancelled() else probe.exception()
