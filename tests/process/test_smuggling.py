"""Requests that two readers could read differently, or that no reader should take: each is refused whole."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

import psutil
import pytest

from tools.support.processes import (
    JSON_HEADERS,
    MINT_BODY,
    Ending,
    connection,
    mint_bytes,
    read_to_end,
    send_and_read_to_end,
)
from tools.support.service import Service
from tools.support.wire import exchange, read_answer, request_bytes

StartService = Callable[..., Service]
MINT = mint_bytes()
HEALTH = request_bytes("GET", "/healthz", [("Host", "localhost")])
LAST_HEALTH = request_bytes("GET", "/healthz", [("Host", "localhost"), ("Connection", "close")])
CHUNKED_BODY = b"%x\r\n%s\r\n0\r\n\r\n" % (len(MINT_BODY), MINT_BODY)
SMUGGLED = b"0\r\n\r\n" + HEALTH
"""To one who reads chunks, the end and another request; to one who reads a length, a body."""


def mint_with(*headers: str, body: bytes = MINT_BODY) -> bytes:
    """A mint with exactly these header lines after Host and Content-Type."""
    head = "\r\n".join(
        ["POST /tokens HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    )
    return head.encode("latin-1") + b"\r\n\r\n" + body


def with_length(*headers: str) -> bytes:
    return mint_with(f"Content-Length: {len(MINT_BODY)}", *headers)


REFUSED = {
    "Content-Length, then Transfer-Encoding": (
        400,
        mint_with(f"Content-Length: {len(SMUGGLED)}", "Transfer-Encoding: chunked", body=SMUGGLED),
    ),
    "Transfer-Encoding, then Content-Length": (
        400,
        mint_with("Transfer-Encoding: chunked", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
    ),
    "both, in HTTP/1.0": (
        400,
        mint_with(f"Content-Length: {len(SMUGGLED)}", "Transfer-Encoding: chunked", body=SMUGGLED).replace(
            b"HTTP/1.1", b"HTTP/1.0"
        ),
    ),
    "Transfer-Encoding that is not chunked": (400, mint_with("Transfer-Encoding: identity")),
    "chunked, but not last": (400, mint_with("Transfer-Encoding: chunked, identity", body=CHUNKED_BODY)),
    "a word that only looks like chunked": (400, mint_with("Transfer-Encoding: xchunked", body=CHUNKED_BODY)),
    "two different Content-Length": (400, with_length("Content-Length: 3")),
    "the same Content-Length twice": (400, with_length(f"Content-Length: {len(MINT_BODY)}")),
    "a list in Content-Length": (400, mint_with("Content-Length: 25, 25")),
    "a signed Content-Length": (400, mint_with("Content-Length: +25")),
    "a negative Content-Length": (400, mint_with("Content-Length: -1")),
    "an empty Content-Length": (400, mint_with("Content-Length:")),
    "a Content-Length beyond 64 bits": (400, mint_with("Content-Length: 18446744073709551641")),
    "bare LF": (400, MINT.replace(b"\r\n", b"\n")),
    "one bare LF": (400, MINT.replace(b"localhost\r\n", b"localhost\n")),
    "bare LF before the body": (400, MINT.replace(b"\r\n\r\n", b"\r\n\n")),
    "bare CR": (400, with_length("X-A: a\rX-B: b")),
    "obsolete folding": (400, with_length("X-A: a", " b")),
    "obsolete folding with a tab": (400, with_length("X-A: a", "\tb")),
    "a space before the colon": (400, mint_with(f"Content-Length : {len(MINT_BODY)}")),
    "a space before the first header": (400, MINT.replace(b"Host", b" Host")),
    "a header without a colon": (400, with_length("X-A")),
    "a header without a name": (400, with_length(": a")),
    "NUL in a value": (400, with_length("X-A: a\0b")),
    "NUL in a name": (400, with_length("X\0A: b")),
    "NUL in the path": (400, MINT.replace(b"/tokens", b"/tok\0ens")),
    "a byte above ASCII in the path": (400, MINT.replace(b"/tokens", b"/tok\xe9ns")),
    "two Host": (400, with_length("Host: localhost")),
    "two Host that differ": (400, with_length("Host: elsewhere")),
    "no Host": (400, MINT.replace(b"Host: localhost\r\n", b"")),
    "a chunk size that is no number": (400, mint_with("Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n")),
    "a negative chunk size": (400, mint_with("Transfer-Encoding: chunked", body=b"-1\r\n{}\r\n")),
    "a chunk size with 0x": (400, mint_with("Transfer-Encoding: chunked", body=b"0x2\r\n{}\r\n")),
    "a chunk size beyond 64 bits": (
        400,
        mint_with("Transfer-Encoding: chunked", body=b"1" + b"0" * 16 + b"\r\n{}\r\n"),
    ),
    "a chunk longer than it says": (400, mint_with("Transfer-Encoding: chunked", body=b"2\r\n{}}}\r\n")),
    "a chunk size that ends in bare LF": (400, mint_with("Transfer-Encoding: chunked", body=b"2\n{}\r\n")),
    "TLS": (400, bytes.fromhex("16030100c8010000c40303") + bytes(range(190))),
    "HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/0.9": (400, b"GET /healthz\r\n\r\n"),
    "no version": (400, MINT.replace(b" HTTP/1.1", b"")),
    "no version, and no header": (400, b"POST /tokens\r\n\r\n"),
    "HTTP/0.9 in words": (400, MINT.replace(b"HTTP/1.1", b"HTTP/0.9")),
    "HTTP/2.0 in words": (400, MINT.replace(b"HTTP/1.1", b"HTTP/2.0")),
    "RTSP/1.0": (400, MINT.replace(b"HTTP/1.1", b"RTSP/1.0")),
    "RTSP/1.1": (400, MINT.replace(b"HTTP/1.1", b"RTSP/1.1")),
    "SOURCE with ICE/1.0": (400, MINT.replace(b"HTTP/1.1", b"ICE/1.0").replace(b"POST", b"SOURCE")),
    "RTSP/1.1 that asks for an upgrade": (
        400,
        with_length("Connection: upgrade", "Upgrade: h2c").replace(b"HTTP/1.1", b"RTSP/1.1"),
    ),
    "two spaces before the target": (400, MINT.replace(b"POST ", b"POST  ")),
    "two spaces before the version": (400, MINT.replace(b" HTTP/1.1", b"  HTTP/1.1")),
    "gzip, then chunked": (400, mint_with("Transfer-Encoding: gzip, chunked", body=CHUNKED_BODY)),
    "gzip, then chunked, in two lines": (
        400,
        mint_with("Transfer-Encoding: gzip", "Transfer-Encoding: chunked", body=CHUNKED_BODY),
    ),
    "identity, then chunked": (400, mint_with("Transfer-Encoding: identity, chunked", body=CHUNKED_BODY)),
    "an empty item, then chunked": (400, mint_with("Transfer-Encoding: ,chunked", body=CHUNKED_BODY)),
    "Transfer-Encoding in HTTP/1.0": (
        400,
        mint_with("Transfer-Encoding: chunked", body=CHUNKED_BODY).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ),
    "two Content-Type": (400, with_length("Content-Type: application/json")),
    "two Content-Type that differ": (400, with_length("Content-Type: text/plain")),
    "two Content-Encoding": (400, with_length("Content-Encoding: identity", "Content-Encoding: identity")),
    "two Expect": (400, with_length("Expect: 100-continue", "Expect: 100-continue")),
    "two Origin": (400, with_length("Origin: null", "Origin: null")),
    "two Authorization": (400, with_length("Authorization: Basic YQ==", "Authorization: Basic Yg==")),
    "HTTP/1.2": (400, MINT.replace(b"HTTP/1.1", b"HTTP/1.2")),
    "no HTTP": (400, b"SSH-2.0-OpenSSH_9.2\r\n"),
    "an unknown method": (400, MINT.replace(b"POST", b"FETCH")),
    "a method in lower case": (400, MINT.replace(b"POST", b"post")),
    "a target in absolute form": (404, MINT.replace(b"/tokens", b"http://localhost/tokens")),
    "a target in asterisk form": (404, request_bytes("OPTIONS", "*", [("Host", "localhost")])),
    "CONNECT to a path": (404, request_bytes("CONNECT", "/tokens", [("Host", "localhost")])),
    "a space in Host": (400, HEALTH.replace(b"localhost", b"local host")),
    "a path in Host": (400, MINT.replace(b"localhost", b"localhost/x")),
    "an expectation of something else": (417, with_length("Expect: more")),
    "CONNECT": (404, request_bytes("CONNECT", "localhost:443", [("Host", "localhost:443")])),
    "1500 headers": (431, with_length(*[f"X-{number}: a" for number in range(1500)])),
    "101 headers": (431, with_length(*[f"X-{number}: a" for number in range(98)])),
    "a header of 20 KiB": (431, with_length("X-A: " + "a" * 20 * 1024)),
    "a URL of 20 KiB": (431, MINT.replace(b"/tokens", b"/tokens?" + b"a" * 20 * 1024)),
    "a header name of 20 KiB": (431, with_length("X" * 20 * 1024 + ": a")),
    "many headers of 20 KiB together": (431, with_length(*["X-A: " + "a" * 1000] * 20)),
}


def assert_refused(ending: Ending, status: int) -> None:
    """One whole JSON answer, and a close that lost nothing of it."""
    [answer] = ending.answers()
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["error"]
    assert isinstance(answer.json["error"], str)
    assert answer.headers["connection"] == "close"
    assert ending.clean


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_and_the_connection_closed(service: Service, name: str) -> None:
    """A request that follows on the connection is not served either."""
    status, raw = REFUSED[name]
    assert_refused(send_and_read_to_end(service.port, raw), status)
    assert_refused(send_and_read_to_end(service.port, raw + HEALTH), status)
    assert service.mint()["sender"] == "agent://risk"


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_after_a_good_request_too(service: Service, name: str) -> None:
    """In one write with a mint before it: the mint is answered first, and whole."""
    status, raw = REFUSED[name]
    ending = send_and_read_to_end(service.port, MINT + raw)
    assert ending.statuses == [200, status]
    assert ending.clean
    assert ending.answers()[0].json["sender"] == "agent://risk"


def test_headers_at_the_limits_are_accepted(service: Service) -> None:
    many = with_length("Connection: close", *[f"X-{number}: a" for number in range(96)])
    long = with_length("Connection: close", "X-A: " + "a" * 15 * 1024)
    for raw in (many, long):
        assert send_and_read_to_end(service.port, raw).statuses == [200]


@pytest.mark.parametrize("drip", [b"X-A: a\r\n" * 1000, b"a" * 8000], ids=["lines", "one line"])
def test_a_header_section_that_never_ends_is_refused(service: Service, drip: bytes) -> None:
    """However fast it is written, and the answer can be read."""
    with connection(service.port) as sock:
        sock.sendall(MINT[:40])
        sent = 0
        with suppress(ConnectionError):
            while sent < 64 * 2**20 and not _has_answer(sock):
                sock.sendall(drip)
                sent += len(drip)
        assert sent < 4 * 2**20
        assert_refused(read_to_end(sock), 431)
    service.mint()


CHUNKED_MINT = mint_with("Transfer-Encoding: chunked", body=CHUNKED_BODY)


@pytest.mark.parametrize(
    ("removed", "trailer", "status"),
    [
        (b"Content-Type: application/json\r\n", b"Content-Type: application/json\r\n", 415),
        (b"", b"Content-Encoding: gzip\r\n", 200),
        (b"", b"Content-Type: text/plain\r\nHost: b\r\n", 200),
    ],
)
def test_a_trailer_is_no_header(service: Service, removed: bytes, trailer: bytes, status: int) -> None:
    """What follows the last chunk can neither fix nor spoil a request that was checked before."""
    raw = CHUNKED_MINT.replace(removed, b"").removesuffix(b"\r\n") + trailer + b"\r\n"
    assert exchange(service.port, raw).status == status


def test_trailers_without_end_are_cut(service: Service) -> None:
    """They cost bandwidth, and no memory: there may be as many as headers."""
    with connection(service.port) as sock:
        sock.sendall(CHUNKED_MINT.removesuffix(b"\r\n"))
        with suppress(OSError):
            for _ in range(500):
                sock.sendall(b"X-Trail: y\r\n" * 5000)
        read_to_end(sock)


def test_trailers_take_no_memory(service: Service) -> None:
    """On many connections at once, until they are answered; one took 120 bytes of memory for its 5."""
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss
    raw = CHUNKED_MINT.removesuffix(b"\r\n") + b"a:b\r\n" * 40_000
    socks: list[socket.socket] = []
    answers = select.poll()  # select() takes no descriptor above 1023, and an earlier test may have many open
    with ExitStack() as stack:
        for _ in range(30):
            sock = stack.enter_context(connection(service.port))
            socks.append(sock)
            with suppress(OSError):
                sock.sendall(raw)
            answers.register(sock, select.POLLIN)
        peak = before
        while len(answers.poll(50)) < len(socks):
            peak = max(peak, process.memory_info().rss)
    assert peak - before < 20 * 1024 * 1024


def test_a_client_that_has_said_all_is_answered(service: Service) -> None:
    """A half-closed connection still gets every answer."""
    with connection(service.port) as sock:
        sock.sendall(MINT * 5)
        sock.shutdown(socket.SHUT_WR)
        assert [answer.status for answer in read_to_end(sock).answers()] == [200] * 5


def test_an_upgrade_request_does_not_spoil_the_next(service: Service) -> None:
    """A request to upgrade and close is answered, also with more in the packet."""
    asked = HEALTH.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: upgrade, close\r\n\r\n")
    assert [answer.status for answer in send_and_read_to_end(service.port, asked + HEALTH).answers()] == [200]


def test_http_1_0_gets_no_interim_answer(service: Service) -> None:
    """It would take 100 Continue for the answer itself (RFC 9110, section 10.1.1)."""
    raw = with_length("Expect: 100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert [answer.status for answer in send_and_read_to_end(service.port, raw).answers()] == [200]


def test_a_request_in_many_small_parts_is_served(service: Service) -> None:
    """Its lines, and the empty one at the end, come in any split; another follows at once."""
    raw = CHUNKED_MINT + MINT + LAST_HEALTH
    with connection(service.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(raw), 3):
            sock.sendall(raw[at : at + 3])
        assert read_to_end(sock).statuses == [200] * 3


def test_an_interim_answer_to_what_is_refused_already_is_no_fault(start_service: StartService) -> None:
    """The body that would have been waited for is in the same packet, and malformed."""
    service = start_service()
    for body in (b"zz\r\n", b"5\r\nhello\r\nzz\r\n"):
        raw = mint_with("Expect: 100-continue", "Transfer-Encoding: chunked", body=body)
        assert_refused(send_and_read_to_end(service.port, raw), 400)
    service.mint()
    assert "Traceback" not in service.log


def _has_answer(sock: socket.socket) -> bool:
    sock.settimeout(0)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        sock.settimeout(15)


def test_no_refusal_is_a_server_error_or_logs_one(service: Service) -> None:
    for _, raw in REFUSED.values():
        send_and_read_to_end(service.port, raw)
    assert "Traceback" not in service.log
    assert not [event for event in service.events if event["level"] in ("error", "critical")]


def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    other = mint_bytes(body=b'{"sender":"agent://other"}')
    answers = send_and_read_to_end(service.port, MINT + other + LAST_HEALTH).answers()
    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.json.get("sender") for answer in answers] == ["agent://risk", "agent://other", None]
    assert answers[2].json == {"ok": True}


@pytest.mark.parametrize("first", [MINT, HEALTH], ids=["mint", "health"])
def test_many_pipelined_requests_are_all_answered(service: Service, first: bytes) -> None:
    """More than a read holds, so that some header section comes in two reads."""
    ending = send_and_read_to_end(service.port, first * 3000 + LAST_HEALTH)
    assert ending.statuses == [200] * 3001
    assert ending.clean


def test_many_pipelined_requests_for_an_upgrade_are_all_answered(service: Service) -> None:
    upgrade = request_bytes(
        "GET", "/healthz", [("Host", "localhost"), ("Connection", "Upgrade"), ("Upgrade", "h2c")]
    )
    ending = send_and_read_to_end(service.port, upgrade * 1500 + LAST_HEALTH)
    assert ending.statuses == [200] * 1501


def test_a_body_is_not_counted_as_the_next_request_s_headers(service: Service) -> None:
    """A body longer than headers may be, and a part of the next request, in one read."""
    with connection(service.port) as sock:
        sock.sendall(mint_bytes(body=MINT_BODY + b" " * 30_000) + MINT[:40])
        assert read_answer(sock).status == 200
        sock.sendall(MINT[40:60])
        sock.sendall(MINT[60:])
        assert read_answer(sock).status == 200


def test_what_follows_the_last_request_is_not_served(service: Service) -> None:
    ending = send_and_read_to_end(service.port, LAST_HEALTH + MINT)
    assert ending.statuses == [200]


def test_a_request_is_not_answered_twice(service: Service) -> None:
    """Its body turns out malformed after it was refused: the connection ends, without another answer."""
    with connection(service.port) as sock:
        sock.sendall(
            request_bytes("POST", "/nowhere", [("Host", "localhost"), ("Transfer-Encoding", "chunked")])
        )
        assert read_answer(sock).status == 404
        sock.sendall(b"zz\r\n")
        ending = read_to_end(sock)
    assert ending.received == b""
    assert ending.clean


def test_a_body_that_is_refused_early_is_read_to_its_end(service: Service) -> None:
    """So that the connection serves the next request, and no byte of the body is taken for one."""
    body = HEALTH * 50
    refused = request_bytes("POST", "/nowhere", [("Host", "localhost"), ("Content-Length", str(len(body)))])
    with connection(service.port) as sock:
        sock.sendall(refused + body[:100])
        assert read_answer(sock).status == 404
        sock.sendall(body[100:] + MINT)
        assert read_answer(sock).json["sender"] == "agent://risk"


@pytest.mark.parametrize("closing", [("Connection", "close"), ("Connection", "keep-alive")])
def test_a_413_can_be_read_by_who_sends_all_the_body(service: Service, closing: tuple[str, str]) -> None:
    """A close with bytes unread would be a reset, and lose the answer."""
    raw = mint_bytes(closing, body=b" " * 2**20)
    for _ in range(20):
        with connection(service.port) as sock:
            sock.sendall(raw)
            answer = read_answer(sock)
            assert answer.status == 413
            assert list(answer.json) == ["error"]
            if closing[1] == "close":
                assert answer.headers["connection"] == "close"
                ending = read_to_end(sock)
                assert ending.clean
                assert ending.received == b""


def test_a_413_for_a_body_of_no_known_length_can_be_read(service: Service) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    headers = [*JSON_HEADERS, ("Transfer-Encoding", "chunked"), ("Connection", "close")]
    raw = request_bytes("POST", "/tokens", headers) + chunk * 16 + b"0\r\n\r\n"
    for _ in range(20):
        assert_refused(send_and_read_to_end(service.port, raw), 413)


def test_a_refusal_can_be_read_by_who_sends_on(service: Service) -> None:
    """Also if the malformed part is a body that has not been read."""
    body = b"18000\r\n" + b" " * 0x18000 + b"\r\nzz\r\n"
    with connection(service.port) as sock:
        sock.sendall(mint_with("Transfer-Encoding: chunked", body=body))
        sock.sendall(b" " * 16 * 2**20)  # more than the kernel holds: the service reads on
        assert_refused(read_to_end(sock), 400)


def test_100_continue(service: Service) -> None:
    head, body = mint_bytes(("Expect", "100-continue")).split(b"\r\n\r\n")
    with connection(service.port) as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert read_answer(sock).status == 200


@pytest.mark.parametrize(
    ("status", "path", "headers"),
    [
        (404, "/nowhere", JSON_HEADERS),
        (405, "/healthz", JSON_HEADERS),
        (413, "/tokens", [*JSON_HEADERS, ("Content-Length", "1048576")]),
        (415, "/tokens", [("Host", "localhost"), ("Content-Type", "text/plain"), ("Content-Length", "5")]),
        (400, "/tokens", [*JSON_HEADERS, ("Host", "again"), ("Content-Length", "5")]),
    ],
)
def test_a_refusal_comes_without_100_continue(
    service: Service, status: int, path: str, headers: list[tuple[str, str]]
) -> None:
    with connection(service.port) as sock:
        sock.sendall(request_bytes("POST", path, [*headers, ("Expect", "100-continue")]))
        first = sock.recv(13, socket.MSG_PEEK | socket.MSG_WAITALL)  # read_answer would pass over a 100
        assert first == b"HTTP/1.1 %d " % status
        assert list(read_answer(sock).json) == ["error"]
