"""The token in use: renewed before it expires, and got anew where renewing does not help."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from msgspec import Struct

from macp_auth.adapters.signers.vault_transit.login import Lease
from macp_auth.domain.errors import SignerError, SignerRefused, reason_of
from macp_auth.domain.statistics import Statistics

_RENEW_AT = 0.6  # of a lease: what is left is time to try again when Vault is away
_WORTH_KEEPING = 0.5  # of the first lease; one that renews to less comes near its maximum, and is replaced
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds between attempts to renew
_REFUSED_SECONDS = 1.0  # so long a refused login is not tried again, however many ask for a token meanwhile
_log = structlog.get_logger()


class _Refusal(Struct, frozen=True):
    """Why the last login was refused, without a traceback, which would grow with each who is told."""

    text: str
    reason: str
    until: float


class Credential:
    """Holds one lease, and replaces it before it ends, without anybody waiting.

    Args:
        log_in: gets a new lease.
        renew: prolongs one.
    """

    def __init__(
        self, log_in: Callable[[], Awaitable[Lease]], renew: Callable[[Lease], Awaitable[Lease]]
    ) -> None:
        self._log_in = log_in
        self._renew = renew
        self._lease: Lease | None = None
        self._since = -math.inf
        self._expires = -math.inf
        self._first_seconds = 0.0
        self._worked: set[str] = set()
        self._refusal: _Refusal | None = None
        self._one_at_a_time = asyncio.Lock()
        self._changed = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._logins = self._renewals = self._failures = 0

    @property
    def current(self) -> Lease | None:
        """The lease in use, whatever is left of it."""
        return self._lease

    @property
    def seconds_left(self) -> float:
        """Until the lease in use expires; infinite if it never does."""
        return self._expires - _now()

    async def lease(self) -> Lease:
        """Return a lease that is alive.

        Raises:
            SignerError: there is none to be had.
        """
        if (lease := self._lease) is not None and self.seconds_left > 0:
            return lease
        return await self._replace(lease)

    def mark_used(self, lease: Lease, operation: str) -> None:
        """Say that Vault accepted ``lease`` for this kind of request."""
        if self._is_in_use(lease):
            self._worked.add(operation)

    async def replacement_for(self, lease: Lease, operation: str) -> Lease | None:
        """Return the lease to try again with, once Vault has refused ``lease``; None if that is no use.

        One that worked for this kind of request was revoked, or expired early: a new login fixes that.
        One that never did lacks a permission, and the next would, too.

        Raises:
            SignerError: there was to be a new one, and it could not be had.
        """
        if self._is_in_use(lease) and operation not in self._worked:
            return None
        return await self._replace(lease)

    def statistics(self) -> Statistics:
        """Return how often there were a login, a renewal, and neither; and what is left, if it ends."""
        counts = {
            "logins_total": self._logins,
            "credential_renewals_total": self._renewals,
            "credential_renewal_failures_total": self._failures,
        }
        if self._lease is None or math.isinf(self._expires):
            return counts
        return {**counts, "credential_seconds_left": self.seconds_left}

    async def aclose(self) -> None:
        """Stop renewing. The lease stays."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])

    def _is_in_use(self, lease: Lease) -> bool:
        return self._lease is not None and lease.client is self._lease.client

    async def _replace(self, old: Lease | None) -> Lease:
        async with self._one_at_a_time:
            if self._lease is not None and (old is None or not self._is_in_use(old)):
                return self._lease  # somebody else has, while this one waited
            asked = _now()
            lease = await self._log_in_unless_refused()
            self._logins += 1
            self._first_seconds, self._worked = lease.seconds, set()
            self._hold(lease, asked)
            if self._keeping is None:
                self._keeping = asyncio.create_task(self._keep())
            _log.info("logged in to Vault", lease_seconds=lease.seconds, renewable=lease.renewable)
            if lease.ends_for_good:
                _log.warning(
                    "the Vault token ends, and can't be renewed: replace it", seconds_left=lease.seconds
                )
            return lease

    async def _log_in_unless_refused(self) -> Lease:
        if self._refusal is not None and _now() < self._refusal.until:
            raise SignerRefused(self._refusal.text, reason=self._refusal.reason)
        try:
            return await self._log_in()
        except SignerRefused as error:
            self._refusal = _Refusal(str(error), error.reason, _now() + _REFUSED_SECONDS)
            raise

    def _hold(self, lease: Lease, since: float) -> None:
        self._lease, self._since = lease, since
        self._expires = since + (lease.seconds or math.inf)
        self._changed.set()

    async def _keep(self) -> None:
        """Prolong the lease again and again; each new one sets the time for the next."""
        pause = _SHORTEST_PAUSE
        while True:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_renewal(pause)):
                    await self._changed.wait()
                continue
            try:
                await self._prolong()
                pause = _SHORTEST_PAUSE
            except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt must come
                self._failures += 1
                pause = min(2 * pause, _LONGEST_PAUSE)
                _log.warning(
                    "Vault token not renewed; trying again",
                    seconds_left=round(self.seconds_left),
                    reason=reason_of(error),
                    detail=str(error) if isinstance(error, SignerError) else type(error).__name__,
                )

    def _until_renewal(self, pause: float) -> float | None:
        assert self._lease is not None  # noqa: S101 - _keep starts with the first one
        if not self._lease.seconds:
            return None
        due = self._since + _RENEW_AT * self._lease.seconds * random.uniform(0.9, 1)  # noqa: S311
        return max(due - _now(), pause)

    async def _prolong(self) -> None:
        assert self._lease is not None  # noqa: S101
        lease = self._lease
        if lease.renewable:
            with suppress(SignerRefused):
                asked = _now()
                renewed = await self._renew(lease)
                if not self._is_in_use(lease):
                    return  # it was replaced meanwhile
                if renewed.seconds >= _WORTH_KEEPING * self._first_seconds:
                    self._hold(renewed, asked)
                    self._renewals += 1
                    return
        await self._replace(lease)


def _now() -> float:
    return asyncio.get_running_loop().time()
