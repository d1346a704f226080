"""One thread for all calls into the library, with a queue that has a bound.

C_Initialize without arguments promises the library that one thread at a time calls it, and SoftHSM
2.6.1 crashes where two do. A call that hangs in a library can't be interrupted: those behind it wait
until their callers give up, and the bound keeps them few.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from macp_auth import SignerUnavailable

T = TypeVar("T")

CLOSE_SECONDS = 1.5
"""How long the end waits for a call that is under way; the host gives a signer 2 s to close."""


class Worker:
    """Runs calls one after the other, in the order in which they came.

    Args:
        max_waiting: how many calls may wait, besides the one that runs.
        last: what the thread runs at its end.
    """

    def __init__(self, max_waiting: int, last: Callable[[], None]) -> None:
        self._max_waiting = max_waiting
        self._last = last
        self._waiting: dict[Future[Any], Callable[[], Any]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def run(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, or raise what it raises. Cancelled while it waits, it never runs.

        Raises:
            SignerUnavailable: too many wait, or the worker is closed.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise _closed()
            if len(self._waiting) >= self._max_waiting:
                raise SignerUnavailable(
                    f"{self._max_waiting} requests wait for the token (MACP_AUTH_PKCS11_MAX_WAITING)",
                    reason="busy",
                )
            self._waiting[future] = call
            self._start()
            self._changed.notify()
        try:
            return await asyncio.wrap_future(future)
        finally:
            with self._changed:
                self._waiting.pop(future, None)  # still there only if it was cancelled

    async def close(self) -> None:
        """Refuse what waits, let the running call end, and end the thread. May be called again.

        After :data:`CLOSE_SECONDS`, a call that hangs is left behind; its thread keeps no process alive.
        """
        with self._changed:
            self._closed = True
            for future in self._waiting:
                if future.set_running_or_notify_cancel():
                    future.set_exception(_closed())
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)

    def _start(self) -> None:
        # At the first call and not before: a thread does not survive a fork.
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="pkcs11", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            _fulfil(*entry)
        self._last()

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            future = next(iter(self._waiting), None)
            return None if future is None else (future, self._waiting.pop(future))


def _fulfil(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - whoever waits for it must hear of it
        future.set_exception(error)


def _closed() -> SignerUnavailable:
    return SignerUnavailable("the signer is closed", reason="closed")
