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
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvloop

from macp_auth.entrypoints.server.connections import Connections
from macp_auth.entrypoints.server.protocol import LINGER_SECONDS, RECEIVE_SECONDS, StrictHTTPProtocol
from macp_auth.entrypoints.server.tls_reload import ReloadingContext

HANDSHAKE_SECONDS = RECEIVE_SECONDS
CLOSE_SECONDS = LINGER_SECONDS
_BATCH = 16  # connections accepted in a turn; each may be one more descriptor than the bound
_RETRY_SECONDS = 0.05  # after running out of descriptors: those that are being closed need a turn
_UNUSABLE = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}  # the listening socket itself
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class EventLoop(uvloop.Loop):
    """Accepts connections within the bound of ``connections``.

    It cuts one whose handshake takes too long, or whose client does not agree to a close.
    """

    def __init__(self, connections: Connections) -> None:
        super().__init__()
        self.connections = connections

    async def create_server(self, protocol_factory: Any, *_: Any, **kwargs: Any) -> Any:
        """Accept on the socket ``sock``, which listens already: what uvicorn asks for."""
        context = kwargs.get("ssl")
        if isinstance(context, ReloadingContext):
            context.on_change = self._trust_changed
        listener = _Listener(self, protocol_factory, kwargs["sock"], context)
        listener.resume()
        return listener

    def _trust_changed(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, and its connections with it
            self.call_soon_threadsafe(self.connections.retire_all)


class _Listener:
    """Accepts connections; what uvicorn uses of an asyncio server."""

    def __init__(
        self,
        loop: EventLoop,
        protocol_factory: Callable[[], StrictHTTPProtocol],
        sock: socket.socket,
        context: ssl.SSLContext | None,
    ) -> None:
        self._loop = loop
        self._protocol_factory = protocol_factory
        self._sock = sock
        self._tls: dict[str, Any] = {}
        if context is not None:
            self._tls = {
                "ssl": context,
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
        self._loop.connections.stopping = True
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
                self._loop.connections.out_of_descriptors()
                self._loop.remove_reader(self._sock)
                self._retry = self._loop.call_later(_RETRY_SECONDS, self.resume)
                return
            task = self._loop.create_task(self._open(accepted))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _open(self, accepted: socket.socket) -> None:
        protocol = self._protocol_factory()
        protocol.accepting = asyncio.current_task()
        self._loop.connections.opened(protocol)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted, **self._tls)
        except BaseException as error:
            self._loop.connections.closed(protocol)
            if not isinstance(error, (OSError, asyncio.CancelledError)):  # the client's fault, or no room
                raise
