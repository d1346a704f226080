"""Concurrent requests share calls: what arrives while a call is under way goes with the next one.

No timer and no fixed batch size: where no call is under way, a request goes at once, with those of the
same turn of the event loop; under load, batches grow until the backend keeps up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain

from msgspec import Struct

from macp_auth.domain.errors import SignerUnavailable
from macp_auth.domain.statistics import Distribution, Statistics

Outcome = bytes | Exception


class Limits(Struct, frozen=True):
    """What bounds a batcher."""

    batch: int
    """The most requests in a call."""
    calls: int
    """The most calls under way."""
    requests: int
    """The most requests that have no answer yet; one more is turned away at once."""


class Batcher:
    """Gathers requests by their key, and gives each its own outcome.

    Args:
        call: answers one batch for one key: an outcome a request, in their order. What it raises is
            the outcome of all.
        limits: how much may be under way.
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
        self._sizes = Distribution.over(1, 2, 4, 8, 16, 32)  # and what is more

    async def submit(self, key: str, content: bytes) -> bytes:
        """Return the answer to ``content``. One that is cancelled while it waits is left out.

        Raises:
            SignerUnavailable: too many wait already, or the batcher is closed before there is an answer.
        """
        if self._unanswered >= self._limits.requests:
            raise SignerUnavailable(f"{self._unanswered} requests wait already", reason="overloaded")
        request = _Request(content, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(key, deque()).append(request)
        self._unanswered += 1
        try:
            if not self._starting:
                # The first of many that arrive together would take the call for itself alone.
                self._starting = True
                asyncio.get_running_loop().call_soon(self._start_calls)
            return await request.answer
        finally:
            self._unanswered -= 1

    async def aclose(self) -> None:
        """Turn away all who wait, and cancel the calls under way."""
        requests = [*chain(*self._waiting.values()), *chain(*self._calls.values())]
        self._waiting.clear()
        calls = list(self._calls)
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        closed = SignerUnavailable("the signer is being closed", reason="stopping")
        _answer(requests, [closed] * len(requests))

    def statistics(self) -> Statistics:
        """Return the sizes of the batches, and how many requests have no answer yet."""
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
        """Take the oldest key's requests that still want an answer."""
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
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
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
