"""Fairness between connections on the event loop, and one write per connection and iteration."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

EACH_TURN = 8
"""How many waiting connections continue in one iteration of the event loop."""


class Turns:
    """Calls back a few waiting connections per iteration of the loop, first in, first out.

    A connection waits only if it has sent more than one turn's work. So however many connections send
    thousands of requests in one write, a single request waits only a few milliseconds for the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` in a later iteration."""
        self._waiting.append(go_on)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        try:
            for _ in range(min(EACH_TURN, len(self._waiting))):
                self._waiting.popleft()()
        finally:
            self._schedule()


class CoalescingTransport:
    """Wraps a transport; coalesces the writes of one iteration of the event loop.

    The head and body of a response leave in one system call. uvicorn writes them separately, and uvloop
    sends each at once: 171 us of CPU per token (ES256) against 130.
    """

    __slots__ = ("_buffer", "_ended", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._buffer: list[bytes] = []
        self._ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write ``data`` at the end of this iteration. After the end of the stream it is dropped."""
        if self._ended:
            return
        if not self._buffer:
            self._loop.call_soon(self.flush)
        self._buffer.append(data)

    def flush(self) -> None:
        """Write the buffer."""
        data = b"".join(self._buffer)
        self._buffer.clear()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Write the buffer, and close when it is sent."""
        self.flush()
        self._ended = True
        self._transport.close()

    def write_eof(self) -> None:
        """Write the buffer, and close this side for writing."""
        self.flush()
        self._ended = True
        with suppress(OSError):  # asyncio's transport raises if the client is gone
            self._transport.write_eof()
