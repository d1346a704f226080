"""Deadlines for blocking calls, such as a read from a network file system whose server is gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class BlockingCall(Generic[T]):
    """Runs a blocking call in a daemon thread, so that the caller can give up.

    The process exits without waiting for the thread, unlike with ``asyncio.to_thread``. While a call hangs,
    further callers join it, so that it uses only one thread. A late result is kept for the next caller;
    otherwise a slow call would never succeed.

    Args:
        function: the function to call.
        name: the name of the thread.
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
        """Like :meth:`result`, for an event loop."""
        running = self._begun()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(running)
        finally:
            self._collected(running)

    def _begun(self) -> Future[T]:
        if self._running is None:
            self._running = Future()
            self._running.set_running_or_notify_cancel()  # from here on, no waiting caller can cancel it
            threading.Thread(target=self._run, args=(self._running,), name=self._name, daemon=True).start()
        return self._running

    def _collected(self, running: Future[T]) -> None:
        """Let the next caller start a new call, because this result was delivered."""
        if running.done() and running is self._running:
            self._running = None

    def _run(self, future: Future[T]) -> None:
        try:
            future.set_result(self._function())
        except BaseException as error:  # noqa: BLE001 - the caller must hear of it, whatever it is
            future.set_exception(error)
