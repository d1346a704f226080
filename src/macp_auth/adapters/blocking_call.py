"""Calls that block and may never return, such as a read from a network file system whose server is gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class BlockingCall(Generic[T]):
    """Makes one call in a daemon thread, so that its caller waits no longer than it wants to.

    The end of the process does not wait for the thread, as it would for one of ``asyncio.to_thread``.
    A call that hangs is joined and not repeated: it holds one thread, however often it is asked for. An
    outcome that came too late is kept for the next caller, or a slow call would never have one.

    Args:
        function: what to call.
        name: the thread's.
    """

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._function = function
        self._name = name
        self._running: Future[T] | None = None

    def result(self, seconds: float) -> T:
        """Return what the function returns, or raise what it raises.

        Raises:
            TimeoutError: it took longer than ``seconds``.
        """
        running = self._begun()
        try:
            return running.result(seconds)
        finally:
            self._collected(running)

    async def result_async(self, seconds: float) -> T:
        """As :meth:`result`, for an event loop."""
        running = self._begun()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(running)
        finally:
            self._collected(running)

    def _begun(self) -> Future[T]:
        if self._running is None:
            self._running = Future()
            self._running.set_running_or_notify_cancel()  # from here on, nobody who waits can cancel it
            threading.Thread(target=self._run, args=(self._running,), name=self._name, daemon=True).start()
        return self._running

    def _collected(self, running: Future[T]) -> None:
        """Let the next call be a new one, if somebody has the outcome of this one."""
        if running.done() and running is self._running:
            self._running = None

    def _run(self, future: Future[T]) -> None:
        try:
            future.set_result(self._function())
        except BaseException as error:  # noqa: BLE001 - the caller must hear of it, whatever it is
            future.set_exception(error)
