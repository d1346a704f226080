"""A bounded thread pool, for signers with a blocking backend library."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from macp_auth.domain.errors import SignerUnavailable

T = TypeVar("T")


class BoundedThreadPool:
    """Runs blocking calls in threads for an event loop, and refuses a call when too many are in progress.

    Calls start in the order in which they came. A thread starts with the first call that needs it, and not
    before: a pool may be made before a fork. Threads are daemons: a call that never returns does not keep
    the process alive. A pool may be used from several event loops, and must be closed.

    Args:
        name: the name of the threads.
        threads: the number of calls that may run at once.
        max_waiting: the number of calls that may wait for a thread.
        when_full: the text of the error for one call more; it should name the setting that is the limit.
    """

    def __init__(self, name: str, *, threads: int, max_waiting: int = 0, when_full: str) -> None:
        self._name = name
        self._max_threads = threads
        self._max_calls = threads + max_waiting
        self._when_full = when_full
        self._waiting: dict[Future[Any], Callable[[], Any]] = {}
        self._running: set[Future[Any]] = set()
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, or raise what it raises.

        Cancelled while it waits for a thread, the call is never made. Cancelled while it runs, the call goes
        on and counts until it returns; its outcome is dropped.

        Raises:
            SignerUnavailable: too many calls are in progress (``busy``), or the pool is closed (``closed``).
        """
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise _closed()
            calls = len(self._waiting) + len(self._running)
            if calls >= self._max_calls:
                raise SignerUnavailable(self._when_full, reason="busy")
            self._waiting[future] = call
            if len(self._threads) < min(calls + 1, self._max_threads):
                thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify()
        try:
            return await asyncio.wrap_future(future)
        finally:
            with self._changed:
                self._waiting.pop(future, None)  # still there only if it was cancelled

    async def aclose(self, *, grace_seconds: float = 1.5) -> None:
        """Refuse calls that wait, let those that run return, and end the threads. May be called again.

        Args:
            grace_seconds: how long to wait for running calls. After that, their callers get
                ``SignerUnavailable`` (``closed``) and the threads are left behind. The host gives a signer
                2 s to close.
        """
        with self._changed:
            self._closed = True
            for future in self._waiting:
                if future.set_running_or_notify_cancel():
                    future.set_exception(_closed())
            self._waiting.clear()
            self._changed.notify_all()
        try:
            if self._threads:
                await asyncio.to_thread(self._join, grace_seconds)
        finally:
            with self._changed:
                while self._running:
                    self._running.pop().set_exception(_closed())

    def _join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while self._run_next():
            pass  # with nothing of the last call held here

    def _run_next(self) -> bool:
        """Run one call, waiting for it if necessary; return False if the pool is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return False
            future = next(iter(self._waiting))
            call = self._waiting.pop(future)
            if not future.set_running_or_notify_cancel():
                return True
            self._running.add(future)
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - the caller must get it, whatever it is
            if self._ended(future):
                future.set_exception(error)
        else:
            if self._ended(future):
                future.set_result(result)
        return True

    def _ended(self, future: Future[Any]) -> bool:
        """Make room for another call; return False if the close has answered this one."""
        with self._changed:
            if future not in self._running:
                return False
            self._running.remove(future)
            return True


def _closed() -> SignerUnavailable:
    return SignerUnavailable("the signer is closed", reason="closed")
