"""Many connections that each send thousands of tiny requests in one write."""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from typing import Self

from tools.support.bounded import HANG_SECONDS

TINY = b"GET / HTTP/1.1\r\nHost:\r\n\r\n"
REQUESTS = 10_000


class Flood:
    """Sends, and reads what is answered or not, in a thread. Use as a context manager.

    Args:
        port: of the service.
        connections: how many of them.
        reading: whether the answers are read.
        secured: what makes TLS connections; None for plain ones.
    """

    def __init__(
        self, port: int, connections: int, *, reading: bool = True, secured: ssl.SSLContext | None = None
    ) -> None:
        self._reading = reading
        self._stack = ExitStack()
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.read = 0
        self.sent = 0
        payload = TINY * REQUESTS
        for _ in range(connections):
            sock = socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS)
            if secured is not None:
                sock = secured.wrap_socket(sock, server_hostname="localhost")
            self._stack.callback(sock.close)
            sock.settimeout(0)
            self._selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, memoryview(payload))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._stack.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for key, events in self._selector.select(0.1):
                sock: socket.socket = key.fileobj  # type: ignore[assignment]
                try:
                    rest = key.data
                    if events & selectors.EVENT_WRITE:
                        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                            count = sock.send(rest[:65536])
                            self.sent += count
                            rest = rest[count:]
                        self._await(sock, rest)
                    if events & selectors.EVENT_READ and self._reading:
                        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                            data = sock.recv(65536)
                            self.read += len(data)
                            if not data:
                                self._selector.unregister(sock)
                except OSError:
                    self._selector.unregister(sock)

    def _await(self, sock: socket.socket, rest: memoryview) -> None:
        events = (selectors.EVENT_READ if self._reading else 0) | (selectors.EVENT_WRITE if rest else 0)
        if events:
            self._selector.modify(sock, events, rest)
        else:
            self._selector.unregister(sock)
