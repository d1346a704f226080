"""Signs with the requested version of a transit key, within a time limit.

Concurrent requests share calls: those that arrive during a call go with the next one. There is no timer
and no fixed batch size: without a call in flight, a request is sent at once, together with those of the
same iteration of the event loop; under load, batches grow until the backend keeps up.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import chain
from typing import TypeVar

import hvac
from msgspec import Struct
from tenacity import AsyncRetrying, retry_if_exception, stop_before_delay, wait_random_exponential

from macp_auth.adapters.signers.vault_transit.connection import Connection
from macp_auth.adapters.signers.vault_transit.credential import Credential, Login
from macp_auth.adapters.signers.vault_transit.settings import VaultSettings
from macp_auth.adapters.signers.vault_transit.transit import Outcome, Transit
from macp_auth.adapters.signers.vault_transit.transport import TokenNotAccepted
from macp_auth.domain.errors import SignerError, SignerUnavailable, UnknownKid
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.signer import Signer
from macp_auth.domain.statistics import Distribution, Statistics

_TRANSIENT = {"unreachable", "unavailable", "sealed", "standby", "rate-limited"}
_REVOKE_SECONDS = 1.0
T = TypeVar("T")


class Limits(Struct, frozen=True):
    """The limits of a batcher."""

    batch: int
    """Maximum number of requests in a call."""
    calls: int
    """Maximum number of concurrent calls."""
    requests: int
    """Maximum number of unanswered requests; one more is refused at once."""


LIMITS = Limits(batch=64, calls=2, requests=1024)
"""For 64 clients on two cores shared with OpenBao, more concurrent calls gain nothing: two, four and eight
give 7,500, 7,800 and 7,700 ES256 tokens/s and 2,000, 2,000 and 1,900 RS256, and each step raises p99."""


class _Failure(Struct, frozen=True):
    """An error without its traceback, which would keep the call's objects alive."""

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
        self._failures: dict[str, _Failure] = {}
        """Why the last call of each operation failed: the reason for requests that time out while waiting."""
        self._closing: asyncio.Future[None] | None = None

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return the versions that transit would verify with, oldest first."""
        self._check_open()
        key = await self._in_time("read", self._ask("read", self._transit.read))
        self._versions = key.versions
        return key.published

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the signature by the version ``kid``; Vault gets the digest, never the claims."""
        if kid not in self._versions:
            raise UnknownKid(kid)
        self._check_open()
        digest = hashlib.sha256(signing_input).digest()
        return await self._in_time("sign", self._batcher.submit(kid, digest))

    def statistics(self) -> Statistics:
        """Return the statistics of the calls and of the token."""
        return {**self._batcher.statistics(), **self._credential.statistics()}

    async def aclose(self) -> None:
        """Revoke the token, if the service logged in for it, and close the connections."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)  # a cancelled caller does not interrupt it

    async def _close(self) -> None:
        async with AsyncExitStack() as stack:  # runs all four, even if one fails
            stack.push_async_callback(self._connection.aclose)
            stack.push_async_callback(self._revoke)
            stack.push_async_callback(self._credential.aclose)
            stack.push_async_callback(self._batcher.aclose)

    async def _revoke(self) -> None:
        if (lease := self._credential.current) is not None:
            with suppress(SignerError, TimeoutError):
                async with asyncio.timeout(_REVOKE_SECONDS):
                    await self._login.revoke(lease)

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
            if (failure := self._failures.get(operation)) is None:
                raise SignerUnavailable(f"Vault gave {late}", reason="timeout") from None
            raise SignerUnavailable(f"{late}; {failure.text}", reason=failure.reason) from None

    async def _ask(self, operation: str, request: Callable[[hvac.Client], Awaitable[T]]) -> T:
        """Return the answer; retry transient errors until the time limit."""
        try:
            return await self._ask_once(operation, request)
        except SignerError as error:
            if not _is_transient(error):
                raise
        attempts = AsyncRetrying(
            retry=retry_if_exception(_is_transient),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            stop=stop_before_delay(self._seconds),
            reraise=True,
        )
        return await attempts(self._ask_once, operation, request)

    async def _ask_once(self, operation: str, request: Callable[[hvac.Client], Awaitable[T]]) -> T:
        try:
            answer = await self._ask_with_lease(operation, request)
        except SignerError as error:
            self._failures[operation] = _Failure(str(error), error.reason)
            raise
        self._failures.pop(operation, None)
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


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, SignerUnavailable) and error.reason in _TRANSIENT


class Batcher:
    """Batches requests by key, and returns each its own outcome.

    Args:
        call: answers one batch of one key with an outcome per request, in order. If it raises, the error
            is the outcome of all.
        limits: the limits of batches and calls.
    """

    def __init__(
        self, call: Callable[[str, Sequence[bytes]], Awaitable[Sequence[Outcome]]], limits: Limits
    ) -> None:
        self._call = call
        self._limits = limits
        self._waiting: dict[str, deque[_Request]] = {}
        self._unanswered = 0
        self._starting = False
        self._calls: dict[asyncio.Task[None], list[_Request]] = {}
        self._sizes = Distribution.over(1, 2, 4, 8, 16, 32)

    async def submit(self, key: str, content: bytes) -> bytes:
        """Return the answer to ``content``. A request that is cancelled while it waits is not sent.

        Raises:
            SignerUnavailable: too many requests wait, or the batcher is closed before the answer.
        """
        if self._unanswered >= self._limits.requests:
            raise SignerUnavailable(f"{self._unanswered} requests wait already", reason="overloaded")
        request = _Request(content, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(key, deque()).append(request)
        self._unanswered += 1
        try:
            if not self._starting:
                # Started later in this iteration, so that requests that arrive together share the call.
                self._starting = True
                asyncio.get_running_loop().call_soon(self._start_calls)
            return await request.answer
        finally:
            self._unanswered -= 1

    async def aclose(self) -> None:
        """Reject all waiting requests, and cancel the calls in flight."""
        requests = [*chain(*self._waiting.values()), *chain(*self._calls.values())]
        self._waiting.clear()
        calls = list(self._calls)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        closed = SignerUnavailable("the signer is being closed", reason="stopping")
        _answer(requests, [closed] * len(requests))

    def statistics(self) -> Statistics:
        """Return the batch sizes, and the numbers of calls in flight and unanswered requests."""
        return {
            "batch_size": self._sizes,
            "calls_in_flight": len(self._calls),
            "requests_waiting": self._unanswered,
        }

    def _start_calls(self) -> None:
        self._starting = False
        while self._waiting and len(self._calls) < self._limits.calls:
            key, batch = self._take_batch()
            if batch:
                self._sizes.note(len(batch))
                task = asyncio.create_task(self._run(key, batch))
                self._calls[task] = batch
                task.add_done_callback(self._end_call)

    def _take_batch(self) -> tuple[str, list[_Request]]:
        """Take the requests of the first key that are not cancelled."""
        key, queue = next(iter(self._waiting.items()))
        batch: list[_Request] = []
        while queue and len(batch) < self._limits.batch:
            request = queue.popleft()
            if not request.answer.done():
                batch.append(request)
        if not queue:
            del self._waiting[key]
        return key, batch

    async def _run(self, key: str, batch: list[_Request]) -> None:
        outcomes: Sequence[Outcome]
        try:
            outcomes = await self._call(key, [request.content for request in batch])
            if len(outcomes) != len(batch):
                raise ValueError(f"{len(outcomes)} outcomes for {len(batch)} requests")
        except Exception as error:  # noqa: BLE001 - every request must get an outcome
            outcomes = [error] * len(batch)
        _answer(batch, outcomes)

    def _end_call(self, task: asyncio.Task[None]) -> None:
        del self._calls[task]
        self._start_calls()


class _Request(Struct, eq=False):
    content: bytes
    answer: asyncio.Future[bytes]


def _answer(requests: Iterable[_Request], outcomes: Iterable[Outcome]) -> None:
    for request, outcome in zip(requests, outcomes, strict=True):
        if request.answer.done():
            continue
        if isinstance(outcome, Exception):
            request.answer.set_exception(outcome)
        else:
            request.answer.set_result(outcome)
