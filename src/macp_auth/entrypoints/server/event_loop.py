"""The event loop of a worker: uvloop, which accepts connections in our way, with bounds on TLS.

libuv resets every new connection when descriptors run out, and says nothing. A connection within its
handshake is not known to its protocol yet, so nothing could end it to make room. And uvicorn hands on no
bounds for TLS: the loop's own are a minute for a handshake and half of one for a close, in which a stop
would wait.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import uvloop
from litestar.types import ASGIApp
from msgspec import Struct

from macp_auth.entrypoints.server.connections import Connections
from macp_auth.entrypoints.server.protocol import LINGER_SECONDS, RECEIVE_SECONDS, StrictHTTPProtocol
from macp_auth.entrypoints.server.tls_reload import ReloadingContext

HANDSHAKE_SECONDS = RECEIVE_SECONDS
CLOSE_SECONDS = LINGER_SECONDS
_BATCH = 16  # connections accepted in a turn; each may be one more descriptor than the bound
_RETRY_SECONDS = 0.05  # after running out of descriptors: those that are being closed need a turn
_UNUSABLE = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}  # the listening socket itself
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener(Struct):
    """What one of the listening sockets serves, and how."""

    connections: Connections
    app: ASGIApp
    context: ssl.SSLContext | None
    """Of its TLS; None for plain HTTP."""


class EventLoop(uvloop.Loop):
    """Accepts connections within the bound of their listener.

    It cuts one whose handshake takes too long, or whose client does not agree to a close.
    """

    def __init__(self) -> None:
        super().__init__()
        self._listeners: list[Listener] = []
        self._served = 0

    def expect(self, listeners: Iterable[Listener]) -> None:
        """Set what uvicorn's sockets serve, in their order."""
        self._listeners = [*listeners]
        for listener in self._listeners:
            if isinstance(listener.context, ReloadingContext):
                listener.context.on_change = self._trust_changed

    async def create_server(self, protocol_factory: Any, *_: Any, **kwargs: Any) -> Any:
        """Accept on the socket ``sock``, which listens already: what uvicorn asks for.

        ``protocol_factory`` returns the arguments of a protocol: only here it is known which listener's.
        """
        acceptor = _Acceptor(self, self._listeners[self._served], protocol_factory, kwargs["sock"])
        self._served += 1
        acceptor.resume()
        return acceptor

    def make_room(self) -> None:
        """Close idle connections of the listener that has most: all share the descriptors."""
        crowded = max(self._listeners, key=lambda listener: listener.connections.idle)
        crowded.connections.out_of_descriptors()

    def _trust_changed(self) -> None:
        for listener in self._listeners:
            with suppress(RuntimeError):  # the loop is closed, and its connections with it
                self.call_soon_threadsafe(listener.connections.retire_all)


class _Acceptor:
    """Accepts connections; what uvicorn uses of an asyncio server."""

    def __init__(
        self,
        loop: EventLoop,
        listener: Listener,
        protocol_arguments: Callable[[], dict[str, Any]],
        sock: socket.socket,
    ) -> None:
        self._loop = loop
        self._app = listener.app
        self._connections = listener.connections
        self._protocol_arguments = protocol_arguments
        self._sock = sock
        self._tls: dict[str, Any] = {}
        if listener.context is not None:
            self._tls = {
                "ssl": listener.context,
                "ssl_handshake_timeout": HANDSHAKE_SECONDS,
                "ssl_shutdown_timeout": CLOSE_SECONDS,
            }
        self._accepting: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        sock.setblocking(False)  # noqa: FBT003 - it has no name

    def resume(self) -> None:
        """Accept from now on."""
        self._retry = None
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Accept no more. The socket is uvicorn's to close."""
        self._connections.stopping = True
        self._loop.remove_reader(self._sock)
        if self._retry is not None:
            self._retry.cancel()

    async def wait_closed(self) -> None:
        """Return at once: a stop waits for no handshake."""

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                accepted, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _UNUSABLE:
                    raise
                if error.errno not in _EXHAUSTED:  # an error of the new connection's network: accept(2)
                    return
                self._loop.make_room()
                self._loop.remove_reader(self._sock)
                self._retry = self._loop.call_later(_RETRY_SECONDS, self.resume)
                return
            task = self._loop.create_task(self._open(accepted))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _open(self, accepted: socket.socket) -> None:
        protocol = StrictHTTPProtocol(**self._protocol_arguments(), connections=self._connections)
        protocol.app = self._app
        protocol.accepting = asyncio.current_task()
        self._connections.opened(protocol)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted, **self._tls)
        except BaseException as error:
            self._connections.closed(protocol)
            if not isinstance(error, (OSError, asyncio.CancelledError)):  # the client's fault, or no room
                raise
