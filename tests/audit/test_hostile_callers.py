"""What a hostile caller can't do to a running service's audit log: blind it, hide in it, reach a terminal."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from macp_auth.domain.scopes import KNOWN_SCOPES
from tests.support.metrics import metrics_env, scrape
from tools.support.service import Service, wait_until
from tools.support.wire import exchange, read_answer, request_bytes

pytestmark = pytest.mark.slow  # under load for seconds

SOON = 30  # seconds: a bound for a hang
ES256 = {"MACP_AUTH_SIGNING_ALG": "ES256"}
REFUSED = request_bytes("POST", "/tokens", [("Host", "x")])
FLOOD_BYTES = 480_000

Start = Callable[..., Service]


class Collector:
    """Reads the audit log's pipe, when it is asked to."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._part = b""
        self.lines: list[dict[str, Any]] = []
        """All whole lines that were taken in."""

    def read(self, limit: int = 2**20) -> None:
        """Take in what there is, up to ``limit`` bytes."""
        with suppress(BlockingIOError):
            *whole, self._part = (self._part + os.read(self._reader, limit)).split(b"\n")
            self.lines += map(json.loads, whole)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == name]

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        def read_and_check() -> bool:
            for _ in range(20):
                self.read()
            return condition()

        wait_until(read_and_check, within=SOON, what=what)

    def close(self) -> None:
        os.close(self._reader)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """A collector at ``tmp_path / "pipe"``."""
    there = Collector(tmp_path / "pipe")
    yield there
    there.close()


def refuse(service: Service, requests: int) -> None:
    """Have so many requests refused, without a credential and without a body."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=SOON) as sock:
        for begun in range(0, requests, 20):
            batch = min(20, requests - begun)
            sock.sendall(REFUSED * batch)
            answers = b""
            while answers.count(b'"sender is required"') < batch:
                received = sock.recv(65536)
                assert received, "the connection was closed"
                answers += received


def fingerprint(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def lines_of(service: Service, count: int) -> list[Any]:
    """The lines on standard output, when there are so many."""
    wait_until(
        lambda: service.audit_path.read_bytes().count(b"\n") >= count, within=SOON, what=f"{count} lines"
    )
    return service.audit_lines


def answer_to(service: Service, **request: Any) -> tuple[int, Any]:
    http_request = urllib.request.Request(
        f"{service.url}/tokens",
        data=json.dumps(request).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(http_request, timeout=SOON) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def readiness_of(service: Service) -> Any:
    return exchange(service.port, request_bytes("GET", "/readyz", [("Host", "x")]), method="GET").json


def test_refusals_before_a_collector_that_does_not_read_cost_no_token_its_line(
    start_service: Start, collector: Collector, tmp_path: Path
) -> None:
    """480 KB of them, then one token: it has a line, refusals are counted, and the service stays ready."""
    service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": str(tmp_path / "pipe")})
    wait_until(lambda: readiness_of(service) == {"ready": True}, within=SOON, what="it is ready")
    requests = FLOOD_BYTES // len(REFUSED)
    refuse(service, requests)
    token = service.mint()["token"]
    assert readiness_of(service) == {"ready": True}

    def counted() -> int:
        summed = sum(sum(line["reasons"].values()) for line in collector.events("refused-summary"))
        return summed + len(collector.events("refused"))

    collector.wait_for(lambda: counted() >= requests, "every refusal is counted")
    assert [line["token_sha256"] for line in collector.events("minted")] == [fingerprint(token)]
    assert counted() == requests
    assert {reason for line in collector.events("refused-summary") for reason in line["reasons"]} == {
        "invalid-sender"
    }
    assert not collector.events("dropped")
    assert service.log.count("\n") < 30


def test_a_stop_before_a_slow_collector_writes_the_tokens_first(
    start_service: Start, collector: Collector, tmp_path: Path
) -> None:
    """The pipe has room for a few lines only: these are of tokens, though refusals came first."""
    service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": str(tmp_path / "pipe")})
    refuse(service, 1000)
    tokens = [service.mint(sender="a" * 900)["token"] for _ in range(200)]
    wait_until(lambda: "keeping lines in memory" in service.log, within=SOON, what="the pipe is full")
    collector.read(16 * 4096)  # room, for part of it
    service.__exit__()
    assert service.process.returncode == 0
    before = len(collector.events("minted"))
    collector.read()
    collector.read()
    written = [line["token_sha256"] for line in collector.events("minted")]
    assert before < len(written)
    assert written == [fingerprint(token) for token in tokens[: len(written)]]
    assert collector.lines[-1]["event"] == "minted"


def test_tokens_whose_lines_are_dropped_make_it_not_ready_until_the_log_says_so(
    start_service: Start, collector: Collector, tmp_path: Path
) -> None:
    """Bounded in bytes, seen at /readyz, in the log, in the metrics, and at last in the audit log itself."""
    service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": str(tmp_path / "pipe"), **metrics_env()})
    wait_until(lambda: readiness_of(service) == {"ready": True}, within=SOON, what="it is ready")
    before = psutil.Process(service.process.pid).memory_info().rss
    body = json.dumps({"sender": "a", "scopes": {"allowed_modes": ["m" * 3000]}}).encode()
    headers = [("Host", "x"), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    request = request_bytes("POST", "/tokens", headers, body)
    minted = 0
    not_ready = {"ready": False, "reason": "audit-lines-dropped"}
    with socket.create_connection(("127.0.0.1", service.port), timeout=SOON) as sock:
        while readiness_of(service) != not_ready:
            assert minted < 20_000, "it never was"
            for _ in range(100):
                sock.sendall(request)
                assert read_answer(sock, "POST").status == 200
            minted += 100
    grown = psutil.Process(service.process.pid).memory_info().rss - before
    assert grown < 24 * 2**20
    wait_until(lambda: "audit lines dropped" in service.log, within=SOON, what="it is logged")
    assert scrape(service).value("macp_auth_audit_lines_dropped_total") > 0
    collector.wait_for(lambda: bool(collector.events("dropped")), "the gap is recorded")
    wait_until(lambda: readiness_of(service) == {"ready": True}, within=SOON, what="it is ready again")
    [gap] = collector.events("dropped")
    assert gap["since"] <= gap["time"]
    assert len(collector.events("minted")) + gap["lines"] == minted


def test_an_unknown_scope_hides_nothing_of_what_was_granted(start_service: Start) -> None:
    """3.8 KB of it: the sender and what the runtime reads are whole, and what is left out is named."""
    service = start_service(ES256)
    sender = "agent://" + "s" * 600
    granted = {
        "can_start_sessions": True,
        "can_manage_mode_registry": True,
        "is_observer": False,
        "allowed_modes": [f"macp.mode.number{number}.v1" for number in range(40)],
        "max_open_sessions": 2**64 - 1,
    }
    assert granted.keys() == KNOWN_SCOPES.keys()
    service.mint(sender=sender, scopes={"x": "y" * 3800, **granted, "z": 1})
    [line] = lines_of(service, 1)
    assert line["sender"] == sender
    assert line["scopes"] == granted
    assert line["truncated"] == ["unknown_scopes"]


def test_a_token_whose_line_can_t_hold_its_essentials_is_refused(start_service: Start) -> None:
    """With the log on; the same request gets a token where there is no log."""
    request = {"sender": "agent://risk", "scopes": {"allowed_modes": ["m" * 4000]}}
    service = start_service(ES256)
    status, answer = answer_to(service, **request)
    assert status == 400
    assert "audit line" in answer["error"]
    [line] = lines_of(service, 1)
    assert (line["event"], line["reason"]) == ("refused", "audit-line-too-large")
    assert (line["sender"], line["scopes"], line["truncated"]) == ("agent://risk", None, ["scopes"])
    quiet = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": "off"})
    assert answer_to(quiet, **request)[0] == 200


HIDDEN = (
    "\x7f\x85\x9b\u00ad\u061c\u180e\u200b\u200f\u2028\u2029\u202e\u2066\ufeff\ufff9\U000e0001\U000e0100\u3164"
)


def test_no_character_of_an_audit_line_moves_a_terminal(start_service: Start) -> None:
    """C1, bidi, line separators and what can't be seen are escaped, and JSON reads them as they were sent."""
    service = start_service(ES256)
    service.mint(sender="agent://é", scopes={"allowed_modes": [HIDDEN], HIDDEN: HIDDEN})
    assert answer_to(service, sender=HIDDEN, scopes=HIDDEN)[0] == 400
    minted, refused = lines_of(service, 2)
    assert minted["scopes"] == {"allowed_modes": [HIDDEN], HIDDEN: HIDDEN}
    assert (refused["sender"], refused["scopes"]) == (HIDDEN, HIDDEN)
    text = service.audit_path.read_text()
    assert not set(HIDDEN) & set(text)
    assert "é" in text  # what can be seen stays as it is


def test_a_flood_of_refusals_grows_neither_log_nor_memory(start_service: Start) -> None:
    """A collector that reads gets a hundred lines and a sum, however many there are."""
    service = start_service(ES256)
    refuse(service, 1000)
    before = psutil.Process(service.process.pid).memory_info().rss
    refuse(service, 10_000)
    assert psutil.Process(service.process.pid).memory_info().rss - before < 8 * 2**20
    service.__exit__()
    lines = lines_of(service, 2)
    whole = [line for line in lines if line["event"] == "refused"]
    summed = [line for line in lines if line["event"] == "refused-summary"]
    assert len(whole) + sum(sum(line["reasons"].values()) for line in summed) == 11_000
    assert len(lines) < 2200  # 100 in 10 seconds; this machine may be slow
