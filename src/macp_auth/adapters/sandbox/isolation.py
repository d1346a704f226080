"""A plugin works on an event loop of its own, so that blocking it blocks nobody else.

The most usual fault of a plugin is a blocking call in a coroutine. On the service's loop it would stop
every request, the published keys and the liveness probe with it, and no deadline could pass.
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
"""For what the plugin's loop still runs at the close to end, once it was cancelled."""


class IsolatedSigner(SignerWrapper):
    """Runs the wrapped signer in a thread with an event loop; the thread begins with the first call.

    A call ends when the wrapped signer's call has really ended, also after it was cancelled: whoever
    counts the calls under way counts right. Only the close ends calls before that.
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
        """Close the wrapped signer, and end the calls under way and the thread."""
        async with self._closing:  # a close that comes meanwhile ends with this one
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
            await asyncio.to_thread(self._thread.join, _END_SECONDS)  # no longer: it may be blocked

    def statistics(self) -> Statistics:
        """Return the numbers that the wrapped signer gave, in its own thread, when last asked."""
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
    """Turns an event loop until it is stopped, and ends the loop's tasks then."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)  # what a plugin blocks must not keep the process from ending
        self.loop = asyncio.new_event_loop()
        self._stopped = False

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._stopped:  # the plugin may have stopped it
            self.loop.run_forever()
        self.loop.run_until_complete(_end_tasks())
        self.loop.close()

    def stop(self) -> None:
        """Have the thread end soon. For another thread to call."""
        self._stopped = True
        self.loop.call_soon_threadsafe(self.loop.stop)


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_END_SECONDS)


def _tell(here: asyncio.AbstractEventLoop, ended: asyncio.Future[T], task: asyncio.Task[T]) -> None:
    """Bring the outcome of ``task`` to the loop that waits for it."""

    def settle() -> None:
        error = None if task.cancelled() else task.exception()  # looked at, or asyncio logs that nobody did
        if ended.done():
            return
        if task.cancelled():
            ended.cancel()
        elif isinstance(error, GeneratorExit):  # raised by the plugin: nobody closes a task's coroutine
            _fail(ended, PluginFault("a signer plugin raised GeneratorExit"))
        elif error is not None:
            _fail(ended, error)
        else:
            ended.set_result(task.result())

    with suppress(RuntimeError):  # the service's loop is closed: nobody waits
        here.call_soon_threadsafe(settle)


def _fail(ended: asyncio.Future[Any], error: BaseException) -> None:
    ended.set_exception(error)
    ended.exception()  # nobody may be waiting any more, and that is no fault
