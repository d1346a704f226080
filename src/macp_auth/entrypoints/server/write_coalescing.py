"""One write a turn of the event loop: head and body of an answer leave in one system call.

uvicorn writes the two apart, and uvloop sends each at once: 171 us of CPU a token (ES256) against 130.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any


class GatheringTransport:
    """Passes a transport on, but gathers what is written in one turn of the event loop."""

    __slots__ = ("_ended", "_gathered", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._gathered: list[bytes] = []
        self._ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write ``data`` with all else of this turn. After the end it is dropped."""
        if self._ended:
            return
        if not self._gathered:
            self._loop.call_soon(self.flush)
        self._gathered.append(data)

    def flush(self) -> None:
        """Write what was gathered."""
        data = b"".join(self._gathered)
        self._gathered.clear()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Write what was gathered, and close when it is sent."""
        self.flush()
        self._ended = True
        self._transport.close()

    def write_eof(self) -> None:
        """Write what was gathered, and end this side."""
        self.flush()
        self._ended = True
        with suppress(OSError):  # asyncio's own transport raises where the client has gone
            self._transport.write_eof()
