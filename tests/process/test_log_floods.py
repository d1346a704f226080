"""What callers can have a running service log: bounded, and never waited for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from macp_auth.entrypoints.logs import LINES, LINES_SECONDS
from tools.support.service import Service, clean_environment, free_port, wait_until
from tools.support.wire import exchange, request_bytes

pytestmark = pytest.mark.slow  # under load for seconds

SOON = 60  # seconds: a bound for a hang
BODY = b'{"sender":"agent://risk"}'
HEADERS = [("Host", "x"), ("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]
MINT = request_bytes("POST", "/tokens", HEADERS, BODY)
WITHOUT_A_BACKEND = {
    "MACP_AUTH_SIGNER": "vault-transit",
    "MACP_AUTH_VAULT_KEY": "k",
    "MACP_AUTH_VAULT_ADDR": "http://127.0.0.1:1",
    "MACP_AUTH_VAULT_TOKEN": "t",
}
"""Each request for a token is a 503, of which a line is logged."""


def status(port: int, request: bytes) -> int:
    try:
        return exchange(port, request, within=SOON).status
    except ConnectionRefusedError:
        return 0


def test_a_log_that_nobody_reads_holds_up_no_request_and_no_end() -> None:
    """The pipe is full; requests that log are answered all the same, memory stays, SIGTERM ends it."""
    port, (reader, writer) = free_port(), os.pipe()
    environment = clean_environment({**WITHOUT_A_BACKEND, "MACP_AUTH_AUDIT_LOG": "off"})
    command = [sys.executable, "-m", "macp_auth", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=writer)
    try:
        wait_until(lambda: status(port, MINT) == 503, within=SOON, what="it serves")
        fill(writer)
        before = psutil.Process(process.pid).memory_info().rss
        began = time.monotonic()
        assert {status(port, MINT) for _ in range(600)} == {503}
        assert time.monotonic() - began < SOON
        assert psutil.Process(process.pid).memory_info().rss - before < 16 * 2**20
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)


def fill(writer: int) -> None:
    """Leave no room in the pipe, for others either, and leave it as it was otherwise."""
    again = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:
            os.write(again, b" " * 4096)
    except BlockingIOError:
        pass
    finally:
        os.close(again)


def test_a_flood_of_failures_is_a_few_lines(start_service: Callable[..., Service]) -> None:
    """However many requests fail; the requests are all counted elsewhere."""
    service = start_service(WITHOUT_A_BACKEND)
    began = time.monotonic()
    assert {status(service.port, MINT) for _ in range(1000)} == {503}
    intervals = 1 + int((time.monotonic() - began) / LINES_SECONDS) + 1
    lines = [event for event in service.events if event["event"] == "no signature"]
    assert LINES <= len(lines) <= LINES * intervals
    assert len(lines) < 1000
    assert all(len(json.dumps(line)) < 2000 for line in lines)
