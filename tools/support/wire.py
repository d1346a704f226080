"""A raw socket: requests byte for byte, and the answers as they come."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Sequence
from typing import Any

from msgspec import Struct


class Answer(Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request_bytes(
    method: str,
    path: str,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    version: str = "HTTP/1.1",
) -> bytes:
    """A request with exactly these headers."""
    lines = [f"{method} {path} {version}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode() + body


def read_answer(sock: socket.socket, method: str = "GET") -> Answer:
    """The next answer on ``sock``."""
    with contextlib.closing(http.client.HTTPResponse(sock, method=method)) as response:
        response.begin()
        body = response.read()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def exchange(port: int, raw: bytes, *, method: str = "POST", within: float = 15) -> Answer:
    """Send ``raw`` on a connection of its own and return the first answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=within) as sock:
        with contextlib.suppress(OSError):  # refused before all was sent: the answer is what counts
            sock.sendall(raw)
        return read_answer(sock, method)
