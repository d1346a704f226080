"""Checks in the background whether this process can mint, so that no probe waits for a backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn

import structlog
from msgspec import Struct

from macp_auth.application.background import in_background
from macp_auth.application.key_refresh import KeyRefresher
from macp_auth.application.key_ring import KeyRing
from macp_auth.domain.claims import Claims
from macp_auth.domain.errors import AuditUnavailable, CallersUnavailable, ClockStepped, SignerError, reason_of

CHECK_INTERVAL_SECONDS = 1.0
"""Time between checks; half of it while this process is not ready."""
PROBE_TIMEOUT_SECONDS = 2.5
"""Longer than a signer's own deadline, usually 2 s, because its error is more specific. A token signed just
after one check satisfies the next, and the one after that detects a hanging signer: a failure shows after
``2 * CHECK_INTERVAL_SECONDS + PROBE_TIMEOUT_SECONDS`` at most, which must be less than 5 s."""
STALE_READINGS = 3
"""Number of intervals without a successful reading after which the keys are stale."""

STARTING, TIMEOUT, NO_KEYS, STALE_KEYS = "starting", "timeout", "no-keys", "stale-keys"
AUDIT_LINES_DROPPED = "audit-lines-dropped"
OWN_REASONS = (
    STARTING,
    TIMEOUT,
    NO_KEYS,
    STALE_KEYS,
    AUDIT_LINES_DROPPED,
    AuditUnavailable.reason,
    CallersUnavailable.reason,
    ClockStepped.reason,
)
"""The reasons that do not come from a signer."""

_log = structlog.get_logger()


class Condition(Struct, frozen=True):
    """What must hold for this process to be ready."""

    broken: Callable[[], bool]
    reason: str
    """The reason while it is broken."""
    detail: str
    """For the log only."""


class _Trouble(Struct, frozen=True):
    reason: str
    detail: str
    """For the log only: it may quote the backend."""
    unexpected: BaseException | None = None


class Readiness:
    """Checks periodically that the signer signs and the keys are fresh.

    If a token was signed since the last check, signing works, even if the signer is so busy that it rejects
    some calls: sending its load to the replicas would not help. Otherwise, the check signs a token that
    expired long ago and discards it.

    Args:
        keys: the ring that signs.
        refresher: refreshes the ring.
        probe_claims: returns the claims to sign in a check.
        clock_trusted: whether the clock is trusted.
        conditions: what else must hold.
        check_interval: seconds between checks; half of it while this process is not ready.
        probe_timeout: the longest time in seconds for a signature.
    """

    def __init__(  # noqa: PLR0913 - all are checked
        self,
        keys: KeyRing,
        refresher: KeyRefresher,
        *,
        probe_claims: Callable[[], Claims],
        clock_trusted: Callable[[], bool] = lambda: True,
        conditions: Sequence[Condition] = (),
        check_interval: float = CHECK_INTERVAL_SECONDS,
        probe_timeout: float = PROBE_TIMEOUT_SECONDS,
    ) -> None:
        self._keys = keys
        self._refresher = refresher
        self._probe_claims = probe_claims
        self._clock_trusted = clock_trusted
        self._conditions = conditions
        self._check_interval = check_interval
        self._probe_timeout = probe_timeout
        self._signed = 0
        self._logged: set[str] = set()
        self._has_been_ready = False
        self.reason: str | None = STARTING
        """The reason why this process can't mint, safe to show; None if it can."""

    @property
    def keys_reason(self) -> str | None:
        """The reason why this process should get no requests for keys; None if it should.

        It should once it has been able to mint: from then on it has keys to publish, whatever happens to the
        signer. A process that never could is misconfigured, perhaps with keys that no token is signed with.
        """
        return None if self._has_been_ready else self.reason

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Check in the background; until the first check ends, the reason is ``starting``."""
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
        broken = (_Trouble(each.reason, each.detail) for each in self._conditions if each.broken())
        return next(broken, None)

    async def _probe(self) -> _Trouble | None:
        # A separate task: a plugin may ignore a cancellation, or raise one.
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
            self._has_been_ready = True
            self._logged.clear()
            if before is not None:
                _log.info("ready")
        elif trouble.reason not in self._logged:  # two reasons may alternate, as with a circuit breaker
            self._logged.add(trouble.reason)
            _log.error("not ready", reason=trouble.reason, detail=trouble.detail, exc_info=trouble.unexpected)


def _retrieve(probe: asyncio.Task[None]) -> BaseException | None:
    """Retrieve the exception, so that asyncio does not log it as never retrieved."""
    return asyncio.CancelledError() if probe.cancelled() else probe.exception()
