"""Runs a plugin on its own event loop, so that it can't block the service.

The most common fault of a plugin is a blocking call in a coroutine. On the service's loop it would stop
every request, including the JWKS and the liveness probe, and no deadline could fire.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from macp_auth.adapters.sandbox.translation import PluginFault
from macp_auth.adapters.wrapper import SignerWrapper
from macp_auth.domain.errors import SignerUnavailable
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.signer import Signer
from macp_auth.domain.statistics import Statistics

T = TypeVar("T")

_END_SECONDS = 0.5
"""Time for cancelled tasks to end when the plugin's loop is closed."""


class IsolatedSigner(SignerWrapper):
    """Runs the wrapped signer in a thread with an event loop; the thread starts with the first call.

    A call ends when the wrapped signer's call has ended, even after a cancellation, so that concurrent calls
    are counted correctly. Only closing ends calls earlier.
    """

    def __init__(self, signer: Signer, name: str) -> None:
        super().__init__(signer)
        self._name = name
        self._thread: _LoopThread | None = None
        self._under_way: set[asyncio.Future[Any]] = set()
        self._closing = asyncio.Lock()
        self._closed = False
        self._statistics: Statistics = {}
        self._reading_statistics = False

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return the wrapped signer's versions."""
        return await self._on_its_loop(super().key_versions)

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the wrapped signer's signature."""
        signing = super().sign
        return await self._on_its_loop(lambda: signing(kid, signing_input))

    async def aclose(self) -> None:
        """Close the wrapped signer, and end its calls and the thread."""
        async with self._closing:  # a concurrent close waits for this one
            if self._closed:
                return
            try:
                if self._thread is not None:
                    await self._on_its_loop(super().aclose)
            finally:
                self._closed = True
                await self._end()

    async def _end(self) -> None:
        for ended in self._under_way:
            if not ended.done():
                _fail(ended, self._refusal())
        if self._thread is not None:
            self._thread.stop()
            await asyncio.to_thread(self._thread.join, _END_SECONDS)  # bounded: it may be blocked

    def statistics(self) -> Statistics:
        """Return the wrapped signer's numbers from its last reading, which runs in its thread."""
        if self._thread is not None and not self._closed and not self._reading_statistics:
            self._reading_statistics = True
            self._thread.loop.call_soon_threadsafe(self._read_statistics)
        return self._statistics

    def _read_statistics(self) -> None:
        self._statistics = super().statistics()
        self._reading_statistics = False

    async def _on_its_loop(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._closed:
            raise self._refusal()
        if self._thread is None:
            self._thread = _LoopThread(f"signer-{self._name}")
            self._thread.start()
        here, there = asyncio.get_running_loop(), self._thread.loop
        ended: asyncio.Future[T] = here.create_future()
        self._under_way.add(ended)
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            task = there.create_task(call())
            tasks.append(task)
            task.add_done_callback(lambda done: _tell(here, ended, done))

        def cancel() -> None:
            tasks[0].cancel()

        there.call_soon_threadsafe(begin)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            if not ended.done():
                there.call_soon_threadsafe(cancel)
                await asyncio.wait([ended])
            raise
        finally:
            self._under_way.discard(ended)

    def _refusal(self) -> SignerUnavailable:
        return SignerUnavailable(f"the signer {self._name!r} is closed", reason="closed")


class _LoopThread(threading.Thread):
    """Runs an event loop until it is stopped, then ends its tasks."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)  # a blocked plugin must not keep the process alive
        self.loop = asyncio.new_event_loop()
        self._stopped = False

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._stopped:  # the plugin may have stopped it
            self.loop.run_forever()
        self.loop.run_until_complete(_end_tasks())
        self.loop.close()

    def stop(self) -> None:
        """End the thread soon. Called from another thread."""
        self._stopped = True
        self.loop.call_soon_threadsafe(self.loop.stop)


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_END_SECONDS)


def _tell(here: asyncio.AbstractEventLoop, ended: asyncio.Future[T], task: asyncio.Task[T]) -> None:
    """Pass the outcome of ``task`` to the loop that waits for it."""

    def settle() -> None:
        error = None if task.cancelled() else task.exception()  # retrieved, or asyncio logs an error
        if ended.done():
            return
        if task.cancelled():
            ended.cancel()
        elif isinstance(error, GeneratorExit):  # raised by the plugin
            _fail(ended, PluginFault("a signer plugin raised GeneratorExit"))
        elif error is not None:
            _fail(ended, error)
        else:
            ended.set_result(task.result())

    with suppress(RuntimeError):  # the service's loop is closed
        here.call_soon_threadsafe(settle)


def _fail(ended: asyncio.Future[Any], error: BaseException) -> None:
    ended.set_exception(error)
    ended.exception()  # the caller may be gone, which is not an error
