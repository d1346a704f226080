"""Open connections: as many as there is room for, and none for ever. The longest idle makes room."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.metrics import metrics_env, scrape
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import connection, mint_bytes, read_to_end
from tools.support.programs import require_tool
from tools.support.service import Service, clean_environment, free_port, wait_until
from tools.support.tls import Authority
from tools.support.tls_service import TLSService, tls_settings
from tools.support.wire import read_answer, request_bytes

pytestmark = pytest.mark.slow  # each waits for connections to be closed

MINT = mint_bytes()
CROWD = 300
REACHED = "connection limit reached; closing the longest-idle connections"
OVER = "connection limit no longer reached"
EXHAUSTED = "no file descriptor left; closing the longest-idle connections"


def limited_to(soft: int, hard: int) -> list[str | Path]:
    """What starts a command with so few descriptors."""
    return [require_tool("prlimit", "util-linux"), f"--nofile={soft}:{hard}"]


def connections_of(service: Service) -> float:
    """How many the service says are open."""
    return sum(scrape(service).values("macp_auth_connections", "worker").values())


@contextmanager
def idle_crowd(port: int, count: int = CROWD) -> Iterator[list[socket.socket]]:
    """Clients that have connected, and say nothing."""
    with ExitStack() as stack:
        yield [stack.enter_context(connection(port)) for _ in range(count)]


def is_open(sock: socket.socket) -> bool:
    """Whether the service has not closed this connection, as far as can be seen now."""
    sock.settimeout(0)
    try:
        return sock.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        sock.settimeout(15)


def test_the_soft_limit_of_descriptors_is_raised(tmp_path: Path) -> None:
    """It is 256 by default; the service raises it to the hard limit, and refuses no connection."""
    with Service(tmp_path, prefix=limited_to(256, 4096)) as service, idle_crowd(service.port) as crowd:
        assert service.mint()["token"]
        assert all(is_open(sock) for sock in crowd)
        assert REACHED not in service.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_idle_clients_that_take_all_descriptors_keep_nobody_out(tmp_path: Path, workers: str) -> None:
    """Those that were idle longest make room. That is in the log once, and once more when it is over."""
    with ExitStack() as stack:
        service = stack.enter_context(
            Service(tmp_path, metrics_env(), "--workers", workers, prefix=limited_to(256, 256))
        )
        with idle_crowd(service.port, CROWD * int(workers)) as crowd:
            for _ in range(20):
                assert service.mint()["token"]
            wait_until(lambda: not is_open(crowd[0]), within=HANG_SECONDS, what="the first of them is closed")
            assert is_open(crowd[-1])
            wait_until(
                lambda: scrape(service).value("macp_auth_connections_shed_total") > CROWD / 3,
                within=HANG_SECONDS,
                what="those that were closed are counted",
            )
            wait_until(
                lambda: CROWD / 4 < connections_of(service) < 256 * int(workers),
                within=HANG_SECONDS,
                what="those that are open are counted",
            )
        reached = service.log.count(REACHED)
        assert 1 <= reached <= int(workers)  # one of two may have taken nearly all
        wait_until(lambda: service.log.count(OVER) == reached, within=45, what="the log says it is over")
        assert service.log.count(REACHED) == reached
        assert '"error"' not in service.log


@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
def test_the_number_of_connections_is_bounded(tmp_path: Path, *, secured: bool) -> None:
    """Also of those that never begin their handshake; a client that works is not the one to go."""
    authority = Authority(tmp_path)
    env = {"MACP_AUTH_MAX_CONNECTIONS": "20"}
    with ExitStack() as stack:
        if secured:
            env |= tls_settings(authority.issue("server"))
            service: Service = stack.enter_context(TLSService(tmp_path, authority.path, env))
            assert isinstance(service, TLSService)
            working: socket.socket = stack.enter_context(service.connection())
        else:
            service = stack.enter_context(Service(tmp_path, env))
            working = stack.enter_context(connection(service.port))
        crowd = []
        for number in range(60):
            crowd.append(stack.enter_context(connection(service.port)))
            if number % 5 == 0:
                working.sendall(MINT)
                assert read_answer(working).status == 200
        wait_until(
            lambda: not any(map(is_open, crowd[:40])), within=HANG_SECONDS, what="the longest idle are closed"
        )
        assert all(map(is_open, crowd[-18:]))
        working.sendall(MINT)
        assert read_answer(working).status == 200
        assert service.log.count(REACHED) == 1


def test_a_client_that_is_slow_to_send_its_request_is_idle(tmp_path: Path) -> None:
    """Bytes that trickle in keep no place."""
    with Service(tmp_path, {"MACP_AUTH_MAX_CONNECTIONS": "10"}) as service, ExitStack() as stack:
        slow = [stack.enter_context(connection(service.port)) for _ in range(10)]
        for sock in slow:
            sock.sendall(MINT[:-5])
        for _ in range(15):
            with connection(service.port) as sock:
                sock.sendall(MINT)
                assert read_answer(sock).status == 200
        assert not is_open(slow[0])


def test_clients_that_do_not_read_keep_nobody_out(tmp_path: Path) -> None:
    """While their answers wait to be read, it is their turn, and they make room as idle ones do."""
    asking = request_bytes("GET", "/.well-known/jwks.json", [("Host", "localhost")]) * 4000
    with Service(tmp_path, {"MACP_AUTH_MAX_CONNECTIONS": "10"}) as service, ExitStack() as stack:
        for _ in range(10):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", service.port))
            sock.settimeout(0.2)
            with suppress(TimeoutError):
                sock.sendall(asking)

        def mints() -> bool:
            with suppress(OSError), connection(service.port) as caller:
                caller.sendall(MINT)
                return read_answer(caller).status == 200
            return False

        wait_until(mints, within=HANG_SECONDS, what="all have answers that wait to be read")
        assert [mints() for _ in range(15)] == [True] * 15


def test_idle_clients_of_the_metrics_keep_nobody_out(tmp_path: Path) -> None:
    """Their port is in the same process, with the same descriptors."""
    with Service(tmp_path, metrics_env(), prefix=limited_to(256, 256)) as service:
        [port] = [event["port"] for event in service.events if event["event"] == "metrics"]
        with idle_crowd(port):
            assert service.mint()["token"]
            assert scrape(service).value("macp_auth_connections", worker="0") < 10


def test_descriptors_that_are_taken_otherwise_keep_nobody_out(tmp_path: Path) -> None:
    """The limit is lowered below what the service expects: accept() fails, idle connections end."""
    prlimit = require_tool("prlimit", "util-linux")
    with Service(tmp_path, {"MACP_AUTH_MAX_CONNECTIONS": "1000"}, prefix=limited_to(256, 2048)) as service:
        subprocess.run([prlimit, "--nofile=128:2048", "--pid", str(service.process.pid)], check=True)
        with idle_crowd(service.port, 200):
            for _ in range(5):
                assert service.mint()["token"]
            assert service.log.count(EXHAUSTED) == 1


def test_more_connections_than_descriptors_are_refused_at_the_start() -> None:
    """The message names the variable, and what to do."""
    for limit, env in ((256, {"MACP_AUTH_MAX_CONNECTIONS": "1000"}), (64, {})):
        command = [sys.executable, "-m", "macp_auth", "serve", "--port", str(free_port())]
        ended = subprocess.run(
            [*limited_to(limit, limit), *command],
            env=clean_environment(env), capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert ended.returncode == 2
        assert "MACP_AUTH_MAX_CONNECTIONS" in ended.stderr
        assert "ulimit -n" in ended.stderr


@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
def test_a_connection_has_a_greatest_age(tmp_path: Path, *, secured: bool) -> None:
    """One in use ends with an answer that says so, an idle one in silence; none by a reset."""
    authority = Authority(tmp_path)
    env = {"MACP_AUTH_CONNECTION_MAX_AGE_SECONDS": "2"}
    with ExitStack() as stack:
        if secured:
            env |= tls_settings(authority.issue("server"))
            service: Service = stack.enter_context(TLSService(tmp_path, authority.path, env))
            assert isinstance(service, TLSService)
            busy: socket.socket = stack.enter_context(service.connection())
            idle: socket.socket = stack.enter_context(service.connection())
        else:
            service = stack.enter_context(Service(tmp_path, env))
            busy, idle = (stack.enter_context(connection(service.port)) for _ in range(2))
        idle.sendall(MINT)
        assert read_answer(idle).status == 200
        deadline = time.monotonic() + HANG_SECONDS
        answers = 0
        while True:
            assert time.monotonic() < deadline, "the connection goes on"
            busy.sendall(MINT)
            answer = read_answer(busy)
            assert answer.status == 200
            answers += 1
            if answer.headers.get("connection") == "close":
                break
            time.sleep(0.05)
        assert answers > 1
        for sock in (busy, idle):
            ending = read_to_end(sock)
            assert (ending.received, ending.clean) == (b"", True)


def test_a_request_that_is_under_way_at_the_greatest_age_is_answered(tmp_path: Path) -> None:
    """Half of it has come by then."""
    env = {"MACP_AUTH_CONNECTION_MAX_AGE_SECONDS": "1"}
    with Service(tmp_path, env) as service, connection(service.port) as sock:
        sock.sendall(MINT[:-5])
        time.sleep(2)  # past its age, and within the time for a request
        sock.sendall(MINT[-5:])
        answer = read_answer(sock)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert read_to_end(sock).clean
