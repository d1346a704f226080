"""Clients that take their time, all at once: each has ten seconds, and costs the others none of theirs."""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections.abc import Iterator, KeysView
from contextlib import ExitStack, suppress

import psutil
import pytest
from msgspec import Struct

from tools.support.processes import JSON_HEADERS, Ending, ask_without_reading, connection, mint_bytes
from tools.support.service import Service, wait_until
from tools.support.wire import read_answer, request_bytes

LIMIT_SECONDS = 10
SLACK_SECONDS = 5
CROWD = 300

_MINT = mint_bytes()
_HEAD, _BODY = _MINT.split(b"\r\n\r\n")
_HEAD += b"\r\n\r\n"
_ENDLESS = request_bytes("POST", "/tokens", [*JSON_HEADERS, ("Content-Length", "1000")])
_CHUNKED = request_bytes("POST", "/tokens", [*JSON_HEADERS, ("Transfer-Encoding", "chunked")])
_REFUSED_EARLY = request_bytes("POST", "/nowhere", [("Host", "localhost"), ("Content-Length", "5")])


class Client(Struct, frozen=True):
    """What it sends at once, what it sends each second after, and the answers it should get."""

    first: bytes
    each_second: bytes
    statuses: list[int]


CUT = {
    "says nothing": Client(b"", b"", []),
    "only line ends": Client(b"\r\n", b"\r\n", []),
    "stops in the request line": Client(b"POST /tok", b"", [408]),
    "stops in the headers": Client(_HEAD[:-20], b"", [408]),
    "stops before the body": Client(_HEAD, b"", [408]),
    "stops in the body": Client(_MINT[:-5], b"", [408]),
    "stops in a chunk": Client(_CHUNKED + b"5\r\n{", b"", [408]),
    "a header byte a second": Client(_HEAD[:-4] + b"\r\nX-Slow: ", b"a", [408]),
    "a header a second": Client(_HEAD[:-2], b"X-Slow: a\r\n", [408]),
    "a body byte a second": Client(_ENDLESS, b" ", [408]),
    "a chunk a second": Client(_CHUNKED, b"1\r\n \r\n", [408]),
    "stops in a second request": Client(_MINT + _MINT[:-5], b"", [200, 408]),
    "stops in a body that is refused already": Client(_REFUSED_EARLY + b"abc", b"", [404]),
    "line ends after an answer": Client(_MINT + b"\r\n", b"\r\n", [200]),
}


KEPT = {
    "silent after an answer": Client(_MINT, b"", [200]),
    "ends the body that was refused already": Client(_REFUSED_EARLY + b"abc", b"\r\n", [404]),
}
"""Between two requests there is more time: 65 seconds."""


class SlowSockets:
    """Many slow clients in one thread."""

    def __init__(self, port: int, clients: dict[str, Client], stack: ExitStack) -> None:
        self.began = time.monotonic()
        self.endings: dict[str, Ending] = {}
        self.received = dict.fromkeys(clients, b"")
        self._clients = clients
        self._next_tick = self.began + 1
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._open: dict[str, socket.socket] = {}
        for name, client in clients.items():
            sock = stack.enter_context(connection(port))
            sock.sendall(client.first)
            sock.settimeout(0)
            self._selector.register(sock, selectors.EVENT_READ, name)
            self._open[name] = sock

    def step(self, seconds: float) -> None:
        """Read what has come in ``seconds``, and send what is due."""
        for key, _ in self._selector.select(seconds):
            self._read(key.data)
        if time.monotonic() >= self._next_tick:
            self._next_tick += 1
            for name in list(self._open):
                self._drip(name)

    @property
    def open(self) -> KeysView[str]:
        return self._open.keys()

    def _read(self, name: str) -> None:
        sock = self._open[name]
        try:
            data = sock.recv(65536)
            clean = True
        except ConnectionError:
            data, clean = b"", False
        self.received[name] += data
        if not data:
            self._selector.unregister(sock)
            del self._open[name]
            self.endings[name] = Ending(self.received[name], clean, at=time.monotonic())

    def _drip(self, name: str) -> None:
        try:
            self._open[name].send(self._clients[name].each_second)
        except ConnectionError:
            self._read(name)


class Outcome(Struct, frozen=True):
    took: dict[str, float]
    endings: dict[str, Ending]
    received: dict[str, bytes]
    asked_without_reading: int
    memory_grown: int
    not_reading_was_cut: bool
    mint_seconds: list[float]
    log: str


def was_cut(sock: socket.socket) -> bool:
    """Whether the service cuts this connection; it had the time from when its answers were held up."""
    with suppress(AssertionError):
        wait_until(
            lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET,
            within=LIMIT_SECONDS,
            what="the connection is reset",
        )
        return True
    return False


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """All slow clients and a crowd of more, until the last one is cut, while tokens are minted."""
    stalled = [Client(_MINT[:30], b"", [408]), Client(_MINT[:-5], b"", [408])]
    crowd = {f"crowd {number}": stalled[number % 2] for number in range(CROWD)}
    mint_seconds = []
    with Service(tmp_path_factory.mktemp("slow")) as service, ExitStack() as stack:
        process = psutil.Process(service.process.pid)
        memory_before = process.memory_info().rss
        reads_nothing = stack.enter_context(socket.socket())
        asked = ask_without_reading(reads_nothing, service.port)
        slow = SlowSockets(service.port, {**CUT, **KEPT, **crowd}, stack)
        enough = slow.began + LIMIT_SECONDS + 1
        too_much = slow.began + LIMIT_SECONDS + 2 * SLACK_SECONDS
        while (now := time.monotonic()) < enough or (slow.open != KEPT.keys() and now < too_much):
            service.mint()
            mint_seconds.append(time.monotonic() - now)
            slow.step(0.05)
        took = {name: ending.at - slow.began for name, ending in slow.endings.items()}
        yield Outcome(
            took,
            slow.endings,
            slow.received,
            asked,
            process.memory_info().rss - memory_before,
            was_cut(reads_nothing),
            mint_seconds,
            service.log,
        )


@pytest.mark.parametrize("name", CUT)
def test_a_slow_client_is_cut_in_time(outcome: Outcome, name: str) -> None:
    """Not before the limit, not long after, and with a 408 if it had begun a request."""
    assert name in outcome.endings, "it was not cut"
    ending = outcome.endings[name]
    assert LIMIT_SECONDS - 0.5 <= outcome.took[name] <= LIMIT_SECONDS + SLACK_SECONDS
    answers = ending.answers()
    assert [answer.status for answer in answers] == CUT[name].statuses
    if answers and answers[-1].status == 408:
        assert ending.clean
        assert answers[-1].json == {"error": "the request did not arrive in time"}
        assert answers[-1].headers["connection"] == "close"


@pytest.mark.parametrize("name", KEPT)
def test_a_client_between_two_requests_is_not_cut(outcome: Outcome, name: str) -> None:
    assert name not in outcome.endings
    assert Ending(outcome.received[name], clean=True, at=0).statuses == KEPT[name].statuses


def test_a_crowd_of_them_is_cut_in_time(outcome: Outcome) -> None:
    crowd = {name: ending for name, ending in outcome.endings.items() if name.startswith("crowd")}
    assert len(crowd) == CROWD
    assert all(ending.clean and ending.statuses == [408] for ending in crowd.values())
    assert max(outcome.took.values()) <= LIMIT_SECONDS + SLACK_SECONDS


def test_tokens_are_minted_meanwhile(outcome: Outcome) -> None:
    assert len(outcome.mint_seconds) > 50
    assert max(outcome.mint_seconds) < LIMIT_SECONDS


def test_slow_clients_leave_no_error_in_the_log(outcome: Outcome) -> None:
    assert '"error"' not in outcome.log


def test_a_client_that_reads_no_answer_is_cut_and_costs_little(outcome: Outcome) -> None:
    """However much it asks for: what it sends is left unread."""
    assert outcome.asked_without_reading < 16 * 2**20
    assert outcome.memory_grown < 64 * 2**20
    assert outcome.not_reading_was_cut


def test_a_client_that_is_slow_but_in_time_is_served(service: Service) -> None:
    """A second between its headers and its body."""
    with connection(service.port) as sock:
        sock.sendall(_HEAD)
        time.sleep(1)  # this is what is tested
        sock.sendall(_BODY)
        assert read_answer(sock).status == 200
