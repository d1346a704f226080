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

from macp_auth.adapters.wrapper import SignerWrapper
from macp_auth.domain.errors import SignerUnavailable
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.signer import Signer
from macp_auth.domain.statistics import Statistics

T = TypeVar("T")


class IsolatedSigner(SignerWrapper):
    """Runs the wrapped signer in a thread with an event loop; the thread begins with the first call.

    A call ends when the wrapped signer's call has really ended, also after it was cancelled: whoever
    counts the calls under way counts right.
    """

    def __init__(self, signer: Signer, name: str) -> None:
        super().__init__(signer)
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
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
        """Close the wrapped signer, and end the thread."""
        if self._closed or self._loop is None:
            self._closed = True
            return
        try:
            await self._on_its_loop(super().aclose)
        finally:
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)

    def statistics(self) -> Statistics:
        """Return the numbers that the wrapped signer gave, in its own thread, when last asked."""
        if self._loop is not None and not self._closed and not self._reading_statistics:
            self._reading_statistics = True
            self._loop.call_soon_threadsafe(self._read_statistics)
        return self._statistics

    def _read_statistics(self) -> None:
        self._statistics = super().statistics()
        self._reading_statistics = False

    async def _on_its_loop(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self._closed:
            raise SignerUnavailable(f"the signer {self._name!r} is closed", reason="closed")
        if self._loop is None:
            self._loop = _start_loop(f"signer-{self._name}")
        here, there = asyncio.get_running_loop(), self._loop
        ended: asyncio.Future[T] = here.create_future()
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


def _start_loop(name: str) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()
        loop.close()

    # A daemon: what a plugin blocks must not keep the process from ending.
    threading.Thread(target=run, name=name, daemon=True).start()
    return loop


def _tell(here: asyncio.AbstractEventLoop, ended: asyncio.Future[T], task: asyncio.Task[T]) -> None:
    """Bring the outcome of ``task`` to the loop that waits for it."""

    def settle() -> None:
        if ended.done():
            return
        if task.cancelled():
            ended.cancel()
        elif (error := task.exception()) is not None:
            ended.set_exception(error)
            ended.exception()  # nobody may be waiting any more, and that is no fault
        else:
            ended.set_result(task.result())

    with suppress(RuntimeError):  # the service's loop is closed: nobody waits
        here.call_soon_threadsafe(settle)
