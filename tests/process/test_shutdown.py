"""The end: SIGTERM and Ctrl-C, with every kind of client connected."""

from __future__ import annotations

import http.client
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import hung_names
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import (
    JSON_HEADERS,
    MINT_BODY,
    all_gone,
    ask_without_reading,
    connection,
    family,
    mint_bytes,
    read_to_end,
    wait_for_draining,
    wait_for_reading,
    workers_of,
)
from tools.support.service import Service, wait_until
from tools.support.wire import read_answer, request_bytes

pytestmark = pytest.mark.slow  # each waits for a service to drain

STOP_SECONDS = 10
StartService = Callable[..., Service]


def stop(service: Service, signum: signal.Signals = signal.SIGTERM) -> int:
    """Tell the service to stop; return its exit status."""
    service.process.send_signal(signum)
    return service.process.wait(STOP_SECONDS)


@pytest.mark.parametrize(
    ("signum", "workers"), [(signal.SIGTERM, "1"), (signal.SIGTERM, "2"), (signal.SIGINT, "1")]
)
def test_an_idle_service_exits_0(start_service: StartService, signum: signal.Signals, workers: str) -> None:
    service = start_service({}, "--workers", workers)
    processes = family(service)
    began = time.monotonic()
    assert stop(service, signum) == 0
    assert time.monotonic() - began < STOP_SECONDS
    wait_until(lambda: all_gone(processes), within=HANG_SECONDS, what="no process is left")
    assert "Traceback" not in service.log
    assert {event["level"] for event in service.events} <= {"info", "warning"}


def test_ctrl_c_reaches_the_workers_too_and_is_no_error(start_service: StartService) -> None:
    """A terminal signals all processes of the foreground group."""
    interrupt_all(start_service({}, "--workers", "2"))


def test_ctrl_c_while_the_workers_start_is_no_error(tmp_path: Path) -> None:
    service = Service(tmp_path, {}, "--workers", "2")
    try:
        wait_until(lambda: len(workers_of(service)) == 2, within=HANG_SECONDS, what="there are two workers")
        interrupt_all(service)
    finally:
        service.__exit__()


def interrupt_all(service: Service) -> None:
    processes = family(service)
    for process in processes:
        process.send_signal(signal.SIGINT)
    assert service.process.wait(STOP_SECONDS) == 0
    wait_until(lambda: all_gone(processes), within=HANG_SECONDS, what="no process is left")
    assert "Traceback" not in service.log


def test_hung_clients_do_not_hold_up_the_end(start_service: StartService) -> None:
    """In the middle of headers, of a body, between requests, without a word, with many answers unread.

    None of them reads, closes, or says anything more. Two services at once: the test is a long wait.
    """
    services = [start_service({}, "--workers", workers) for workers in ("1", "2")]
    processes = [process for service in services for process in family(service)]
    mint = mint_bytes()
    with ExitStack() as stack:
        for service in services:
            for sent in (mint[:30], mint[:-5], mint, mint + mint[:-5], b""):
                stack.enter_context(connection(service.port)).sendall(sent)
            ask_without_reading(stack.enter_context(socket.socket()), service.port)
            wait_for_reading(service)
        began = time.monotonic()
        for service in services:
            service.process.send_signal(signal.SIGTERM)
        assert [service.process.wait(STOP_SECONDS) for service in services] == [0, 0]
        assert time.monotonic() - began < STOP_SECONDS
    wait_until(lambda: all_gone(processes), within=HANG_SECONDS, what="no process is left")
    assert not [service for service in services if "Traceback" in service.log]


def test_several_workers_that_drain_refuse_new_connections(start_service: StartService) -> None:
    """A caller must not wait in a queue without a server, and be reset at the end."""
    service = start_service({}, "--workers", "2")
    mint = mint_bytes()
    with connection(service.port) as in_body:
        in_body.sendall(mint[:-5])
        wait_for_reading(service)
        service.process.send_signal(signal.SIGTERM)
        wait_for_draining(service)
        in_body.sendall(mint[-5:])
        assert read_to_end(in_body).statuses == [200]
    assert service.process.wait(STOP_SECONDS) == 0


def test_a_request_in_flight_is_answered_when_its_body_arrives(start_service: StartService) -> None:
    service = start_service()
    mint = mint_bytes()
    with connection(service.port) as in_body, connection(service.port) as in_headers:
        in_body.sendall(mint[:-5])
        in_headers.sendall(mint[:30])
        wait_for_reading(service)
        service.process.send_signal(signal.SIGTERM)
        wait_for_draining(service)
        in_body.sendall(mint[-5:])
        in_headers.sendall(mint[30:])
        for sock in (in_body, in_headers):
            ending = read_to_end(sock)
            [answer] = ending.answers()
            assert ending.clean
            assert answer.status == 200
            assert answer.json["sender"] == "agent://risk"
            assert answer.headers["connection"] == "close"
    assert service.process.wait(STOP_SECONDS) == 0


def test_a_request_that_was_on_its_way_on_an_idle_connection_is_answered(start_service: StartService) -> None:
    service = start_service()
    mint = mint_bytes()
    with (
        connection(service.port) as used,
        connection(service.port) as fresh,
        connection(service.port) as probe,
    ):
        health = request_bytes("GET", "/healthz", [("Host", "localhost")])
        for sock, request in ((used, mint), (probe, health)):
            sock.sendall(request)
            assert "connection" not in read_answer(sock).headers
        wait_for_reading(service)
        service.process.send_signal(signal.SIGTERM)
        wait_for_draining(service)
        used.sendall(mint)
        fresh.sendall(mint)
        probe.sendall(health)
        assert [answer.json for answer in read_to_end(probe).answers()] == [{"ok": True}]
        for sock in (used, fresh):
            ending = read_to_end(sock)
            [answer] = ending.answers()
            assert ending.clean
            assert answer.status == 200
            assert answer.headers["connection"] == "close"
    assert service.process.wait(STOP_SECONDS) == 0


def test_only_silence_is_closed(start_service: StartService) -> None:
    """Cleanly, and after a second; not a request that began in it, whose body comes when it is over."""
    service = start_service()
    mint = mint_bytes()
    with connection(service.port) as late, connection(service.port) as silent:
        silent.sendall(mint)
        read_answer(silent)
        service.process.send_signal(signal.SIGTERM)
        signalled = time.monotonic()
        wait_for_draining(service)
        late.sendall(mint[:-5])
        ending = read_to_end(silent)
        assert ending.clean
        assert ending.received == b""
        assert 1 <= ending.at - signalled < 5
        late.sendall(mint[-5:])
        ending = read_to_end(late)
        assert ending.clean
        assert ending.statuses == [200]
    assert service.process.wait(STOP_SECONDS) == 0


class LoadingClient(threading.Thread):
    """Mints in a loop on one keep-alive connection, until the response closes it."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
        self.connection.auto_open = 0
        self.minted = 0
        self.failure: Exception | None = None
        self.closed = False

    def run(self) -> None:
        self.connection.connect()
        try:
            while not self.closed:
                self.connection.request("POST", "/tokens", MINT_BODY, dict(JSON_HEADERS))
                response = self.connection.getresponse()
                whole = len(response.read()) == int(response.headers["content-length"])
                assert (response.status, whole) == (200, True)
                self.minted += 1
                self.closed = response.headers["connection"] == "close"
        except (OSError, http.client.HTTPException, AssertionError) as error:
            self.failure = error
        finally:
            self.connection.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_request_is_lost_under_keep_alive_load(start_service: StartService, workers: str) -> None:
    service = start_service({}, "--workers", workers)
    clients = [LoadingClient(service.port) for _ in range(12)]
    for client in clients:
        client.start()
    wait_until(
        lambda: all(client.minted >= 5 for client in clients), within=HANG_SECONDS, what="all clients mint"
    )
    assert stop(service) == 0
    for client in clients:
        client.join(STOP_SECONDS)
        assert client.failure is None
        assert client.closed
    assert "Traceback" not in service.log


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("milestone", ["", "listening"])
def test_sigterm_during_start_up_is_obeyed(tmp_path: Path, workers: str, milestone: str) -> None:
    """Right after the spawn, and when the port is bound but nothing serves yet."""
    service = Service(tmp_path, {}, "--workers", workers)
    try:
        wait_until(
            lambda: f'"{milestone}' in service.log or not milestone, within=HANG_SECONDS, what=milestone
        )
        processes = family(service)
        assert stop(service) in (0, -signal.SIGTERM)
        wait_until(lambda: all_gone(processes), within=HANG_SECONDS, what="no process is left")
        assert "Traceback" not in service.log
    finally:
        service.__exit__()


def test_a_name_that_does_not_resolve_delays_no_exit(tmp_path: Path, start_service: StartService) -> None:
    """That of Vault: the C library waits up to a minute for name servers that do not answer."""
    vault = {
        "MACP_AUTH_SIGNER": "vault-transit",
        "MACP_AUTH_VAULT_ADDR": f"https://{hung_names.NAME}:8200",
        "MACP_AUTH_VAULT_TOKEN": "hvs." + "x" * 24,
        "MACP_AUTH_VAULT_KEY": "macp",
    }
    service = start_service({**vault, **hung_names.environment(tmp_path)})
    wait_until(lambda: "cannot read keys" in service.log, within=HANG_SECONDS, what="a request has failed")
    assert stop(service) == 0
