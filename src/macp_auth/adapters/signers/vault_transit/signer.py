"""Signs with a transit key, by the version that it is told to, and never more than a bound late."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import TypeVar

import hvac
from msgspec import Struct
from tenacity import AsyncRetrying, retry_if_exception, stop_before_delay, wait_random_exponential

from macp_auth.adapters.signers.vault_transit.batcher import Batcher, Limits, Outcome
from macp_auth.adapters.signers.vault_transit.connection import Connection, TokenNotAccepted
from macp_auth.adapters.signers.vault_transit.credential import Credential
from macp_auth.adapters.signers.vault_transit.login import Login
from macp_auth.adapters.signers.vault_transit.settings import VaultSettings
from macp_auth.adapters.signers.vault_transit.transit import Transit
from macp_auth.domain.errors import SignerError, SignerUnavailable, UnknownKid
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.signer import Signer
from macp_auth.domain.statistics import Statistics

LIMITS = Limits(batch=64, calls=2, requests=1024)
"""For 64 clients on two cores shared with OpenBao, more calls at a time gain nothing: two, four and eight
give 7,500, 7,800 and 7,700 ES256 tokens/s and 2,000, 2,000 and 1,900 RS256, and the more, the longer p99."""
_PASSES_SOON = {"unreachable", "unavailable", "sealed", "standby", "rate-limited"}
_GIVE_BACK_SECONDS = 1.0
T = TypeVar("T")


class _Trouble(Struct, frozen=True):
    """An error without its traceback, which would hold all that the call held."""

    text: str
    reason: str


class VaultTransitSigner(Signer):
    """The versions of one transit key."""

    def __init__(self, settings: VaultSettings) -> None:
        self._seconds = settings.timeout_ms / 1000
        self._connection = Connection(settings)
        self._login = Login(settings, self._connection)
        self._transit = Transit(settings.mount, settings.key)
        self._credential = Credential(self._login.log_in, self._login.renew)
        self._batcher = Batcher(self._sign_batch, LIMITS)
        self._versions: Mapping[str, int] = {}
        self._trouble: dict[str, _Trouble] = {}
        """What the last call of each kind failed of. It tells those whose turn did not come why."""
        self._closing: asyncio.Future[None] | None = None

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return the versions that transit would verify with, oldest first."""
        self._check_open()
        key = await self._in_time("read", self._ask("read", self._transit.read))
        self._versions = key.versions
        return key.published

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the signature by the version ``kid``; Vault is given the digest, never the claims."""
        if kid not in self._versions:
            raise UnknownKid(kid)
        self._check_open()
        digest = hashlib.sha256(signing_input).digest()
        return await self._in_time("sign", self._batcher.submit(kid, digest))

    def statistics(self) -> Statistics:
        """Return the numbers of the calls and of the token."""
        return {**self._batcher.statistics(), **self._credential.statistics()}

    async def aclose(self) -> None:
        """Give the token back, if the service logged in for it, and close the connections."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)  # who is cancelled while it waits leaves nothing half closed

    async def _close(self) -> None:
        async with AsyncExitStack() as stack:  # each of them, whatever became of those before
            stack.push_async_callback(self._connection.aclose)
            stack.push_async_callback(self._give_back)
            stack.push_async_callback(self._credential.aclose)
            stack.push_async_callback(self._batcher.aclose)

    async def _give_back(self) -> None:
        if (lease := self._credential.current) is not None:
            with suppress(SignerError, TimeoutError):
                async with asyncio.timeout(_GIVE_BACK_SECONDS):
                    await self._login.give_back(lease)

    async def _sign_batch(self, kid: str, digests: Sequence[bytes]) -> Sequence[Outcome]:
        version = self._versions.get(kid)
        if version is None:
            raise UnknownKid(kid)
        return await self._ask("sign", lambda client: self._transit.sign(client, version, digests))

    def _check_open(self) -> None:
        if self._closing is not None:
            raise SignerUnavailable("the signer is closed", reason="stopping")

    async def _in_time(self, operation: str, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._seconds):
                return await answer
        except TimeoutError:
            late = f"no signature or key within {self._seconds:g} s"
            if (trouble := self._trouble.get(operation)) is None:
                raise SignerUnavailable(f"Vault gave {late}", reason="timeout") from None
            raise SignerUnavailable(f"{late}; {trouble.text}", reason=trouble.reason) from None

    async def _ask(self, operation: str, request: Callable[[hvac.Client], Awaitable[T]]) -> T:
        """Return the answer; again and again where that is safe and useful, until the time is over."""
        try:
            return await self._ask_once(operation, request)
        except SignerError as error:
            if not _passes_soon(error):
                raise
        attempts = AsyncRetrying(
            retry=retry_if_exception(_passes_soon),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            stop=stop_before_delay(self._seconds),
            reraise=True,
        )
        return await attempts(self._ask_once, operation, request)

    async def _ask_once(self, operation: str, request: Callable[[hvac.Client], Awaitable[T]]) -> T:
        try:
            answer = await self._ask_with_lease(operation, request)
        except SignerError as error:
            self._trouble[operation] = _Trouble(str(error), error.reason)
            raise
        self._trouble.pop(operation, None)
        return answer

    async def _ask_with_lease(self, operation: str, request: Callable[[hvac.Client], Awaitable[T]]) -> T:
        lease = await self._credential.lease()
        try:
            answer = await request(lease.client)
        except TokenNotAccepted:
            if (other := await self._credential.replacement_for(lease, operation)) is None:
                raise
            lease = other
            answer = await request(lease.client)
        self._credential.mark_used(lease, operation)
        return answer


def _passes_soon(error: BaseException) -> bool:
    return isinstance(error, SignerUnavailable) and error.reason in _PASSES_SOON
