"""Raw connections to a service, and the processes that it is made of."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from msgspec import Struct

from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, wait_until
from tools.support.wire import Answer, request_bytes

JSON_HEADERS = [("Host", "localhost"), ("Content-Type", "application/json")]
MINT_BODY = b'{"sender":"agent://risk"}'


def mint_bytes(*extra: tuple[str, str], body: bytes = MINT_BODY) -> bytes:
    """A request for a token."""
    return request_bytes("POST", "/tokens", [*JSON_HEADERS, ("Content-Length", str(len(body))), *extra], body)


class Ending(Struct, frozen=True):
    """All that a connection said until it ended, and how it ended."""

    received: bytes
    clean: bool
    """It ended by a close, not by a reset."""
    at: float

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.received)]

    def answers(self) -> list[Answer]:
        """Every answer; each must be whole, with a Content-Length."""
        answers, rest = [], self.received
        while rest:
            head, separator, rest = rest.partition(b"\r\n\r\n")
            assert separator, f"half an answer: {head!r}"
            status_line, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            length = int(headers.get("content-length", "0"))
            assert len(rest) >= length, f"half an answer: {self.received!r}"
            answers.append(Answer(int(status_line.split()[1]), headers, rest[:length]))
            rest = rest[length:]
        return answers


@contextmanager
def connection(port: int, *, within: float = 15) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=within) as sock:
        yield sock


def read_to_end(sock: socket.socket) -> Ending:
    """What comes until the connection ends; fails the test by the socket's time limit."""
    received = b""
    while True:
        try:
            data = sock.recv(65536)
        except ConnectionError:
            return Ending(received, clean=False, at=time.monotonic())
        if not data:
            return Ending(received, clean=True, at=time.monotonic())
        received += data


def send_and_read_to_end(port: int, raw: bytes) -> Ending:
    with connection(port) as sock:
        with suppress(OSError):  # refused before all was sent: the answer is what counts
            sock.sendall(raw)
        return read_to_end(sock)


def ask_without_reading(sock: socket.socket, port: int, enough: int = 32 * 2**20) -> int:
    """Send requests until the service takes no more for a second, or has taken ``enough`` bytes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.settimeout(1)
    requests = request_bytes("GET", "/.well-known/jwks.json", [("Host", "localhost")]) * 1000
    sent = 0
    with suppress(TimeoutError):
        while sent < enough:
            sent += sock.send(requests)
    return sent


def wait_for_reading(service: Service) -> None:
    """Wait until the service has read what was sent before: a later request has been answered."""
    with connection(service.port) as sock:
        sock.sendall(request_bytes("GET", "/healthz", [("Host", "localhost"), ("Connection", "close")]))
        answers = read_to_end(sock).answers()
        assert json.loads(answers[0].body) == {"ok": True}


def refuses_connections(port: int) -> bool:
    """Whether nothing listens on ``port``."""
    try:
        with connection(port, within=HANG_SECONDS):
            return False
    except ConnectionRefusedError:
        return True


def wait_for_draining(service: Service) -> None:
    """Wait until a stopping service has closed its port."""
    wait_until(
        lambda: refuses_connections(service.port), within=HANG_SECONDS, what="the service stops listening"
    )


def workers_of(service: Service) -> list[psutil.Process]:
    """The worker processes; there is another child, which keeps count of multiprocessing's resources."""
    return [child for child in psutil.Process(service.process.pid).children() if _is_worker(child)]


def family(service: Service) -> list[psutil.Process]:
    """The service's process and all that it started."""
    parent = psutil.Process(service.process.pid)
    return [parent, *parent.children(recursive=True)]


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any("spawn_main" in argument for argument in process.cmdline())
    except psutil.NoSuchProcess:
        return False
