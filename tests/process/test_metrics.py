"""Metrics of a running service, scraped over a socket as Prometheus does."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from macp_auth.entrypoints.server.shared_directory import shared_directory
from tests.process.test_workers import stopped
from tests.support.metrics import Scrape, metrics_env, scrape
from tests.support.users import require_view_of_services
from tools.fuzz.raw_clients import fuzz, tracebacks
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import connection, mint_bytes, workers_of
from tools.support.service import Service, clean_environment, free_port, wait_until
from tools.support.wire import exchange, read_answer, request_bytes

pytestmark = pytest.mark.slow  # services with one and two workers, killed and started again

StartService = Callable[..., Service]
WORKERS = ["1", "2"]


@pytest.fixture(params=WORKERS)
def measured(request: pytest.FixtureRequest, start_service: StartService) -> Service:
    """A service with metrics, of one worker and of two."""
    return start_service(metrics_env(), "--workers", request.param)


def refuse(service: Service, body: bytes, content_type: str = "application/json") -> int:
    """Send a request that gets no token; return its status."""
    headers = [("Host", "x"), ("Content-Type", content_type), ("Content-Length", str(len(body)))]
    return exchange(service.port, request_bytes("POST", "/tokens", headers, body)).status


def mint_by_each_worker(service: Service, tokens: int) -> None:
    """Mint so many, an equal part of them by each worker: the others stand still meanwhile."""
    workers = workers_of(service) or [psutil.Process(service.process.pid)]
    for minting in workers:
        with ExitStack() as stack:
            for other in workers:
                if other != minting:
                    stack.enter_context(stopped(other))
            for _ in range(tokens // len(workers)):
                service.mint()


def minted(found: Scrape) -> float:
    return found.value("macp_auth_mints_total", result="minted", reason="")


def test_counts_are_what_was_sent(measured: Service) -> None:
    """Over all workers, at once, by result and reason."""
    mint_by_each_worker(measured, 40)
    for _ in range(3):
        assert refuse(measured, b'{"sender": ""}') == 400
    assert refuse(measured, b"{") == 400
    assert refuse(measured, b"{}", "text/plain") == 415
    measured.jwks()
    etag = json.dumps("nothing")
    conditional = request_bytes(
        "GET", "/.well-known/jwks.json", [("Host", "x"), ("If-None-Match", f"{etag}, *")]
    )
    assert exchange(measured.port, conditional).status == 304
    found = scrape(measured)
    assert found.values("macp_auth_mints_total", "result", "reason") == {
        ("minted", ""): 40,
        ("refused", "invalid-sender"): 3,
        ("refused", "invalid-json"): 1,
        ("refused", "unsupported-media-type"): 1,
    }
    assert found.values("macp_auth_jwks_requests_total", "status") == {("200",): 1, ("304",): 1}
    assert found.value("macp_auth_sign_duration_seconds_count", signer="ephemeral") >= 40
    assert found.value("macp_auth_sign_duration_seconds_sum", signer="ephemeral") > 0


def test_each_worker_says_how_it_is(measured: Service) -> None:
    """Whether it can mint, which keys it publishes, and when it read them."""
    workers = {(str(place),) for place in range(int(scrape(measured).value("macp_auth_workers")))}
    wait_until(
        lambda: scrape(measured).values("macp_auth_ready", "worker") == dict.fromkeys(workers, 1),
        within=HANG_SECONDS,
        what="every worker says that it is ready",
    )
    found = scrape(measured)
    keys = found.values("macp_auth_key_state", "worker", "kid", "alg", "state")
    assert keys == {(worker, "dev-key-1", "RS256", "active"): 1 for (worker,) in workers}
    read = found.values("macp_auth_keys_read_timestamp_seconds", "worker")
    assert read.keys() == workers
    assert all(time > found.value("macp_auth_start_time_seconds") - 1 for time in read.values())
    assert found.values("macp_auth_not_ready", "reason") == {}


def test_a_killed_worker_takes_no_count_with_it(start_service: StartService) -> None:
    """What both had counted stays, also when their files are gone, and the replacement counts on."""
    service = start_service(metrics_env(), "--workers", "2")
    wait_until(
        lambda: len(scrape(service).values("macp_auth_ready", "worker")) == 2,
        within=HANG_SECONDS,
        what="both",
    )
    counted = 0
    for restarts, killed in enumerate(workers_of(service), start=1):
        for _ in range(10):
            service.mint()
        counted += 10
        killed.kill()
        assert minted(scrape(service)) == counted
        wait_until(
            lambda expected=restarts: scrape(service).value("macp_auth_worker_restarts_total") == expected,
            within=HANG_SECONDS,
            what="it is replaced",
        )
        assert minted(scrape(service)) == counted
    wait_until(
        lambda: set(ready(service).values()) == {1} and len(ready(service)) == 2,
        within=HANG_SECONDS,
        what="both",
    )
    service.mint()
    found = scrape(service)
    assert minted(found) == counted + 1
    pids = {worker.pid for worker in workers_of(service)}
    [directory] = directories_of(service)
    assert {int(path.stem) for path in directory.iterdir()} == pids


def ready(service: Service) -> dict[tuple[str, ...], float]:
    return scrape(service).values("macp_auth_ready", "worker")


def directories_of(service: Service) -> list[Path]:
    """Where the workers of ``service`` count."""
    require_view_of_services()
    mapped = {
        Path(region.path).parent
        for worker in [psutil.Process(service.process.pid), *workers_of(service)]
        for region in worker.memory_maps()
        if region.path.endswith(".cells")
    }
    return sorted(mapped)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_new_service_begins_at_zero_and_leaves_nothing(start_service: StartService, workers: str) -> None:
    """Its directory goes with it; that of a service that was killed goes with the next start."""
    env = metrics_env()
    first = start_service(env, "--workers", workers)
    first.mint()
    [directory] = directories_of(first)
    first.__exit__()
    assert first.process.returncode == 0
    assert not directory.exists()

    second = start_service(env, "--workers", workers)
    assert minted(scrape(second)) == 0
    [left] = directories_of(second)
    processes = [psutil.Process(second.process.pid), *workers_of(second)]
    second.process.kill()
    second.process.wait()
    psutil.wait_procs(processes, timeout=HANG_SECONDS)

    third = start_service(env, "--workers", workers)  # or a service of another test, in between
    assert not left.exists()
    assert minted(scrape(third)) == 0


def test_a_service_that_runs_keeps_its_directory_when_another_starts(start_service: StartService) -> None:
    """Only unlocked directories are removed."""
    service = start_service(metrics_env())
    service.mint()
    with shared_directory():
        service.mint()
        assert minted(scrape(service)) == 2


def test_a_file_that_no_worker_wrote_is_skipped_and_logged_once(start_service: StartService) -> None:
    """Both pages have the rest; a file that vanishes is not worth a line."""
    service = start_service(metrics_env())
    service.mint()
    [directory] = directories_of(service)
    [worker] = directory.glob("*.cells")
    gone = 2**22 + 1  # no process has such an id: it is more than Linux's highest
    foreign = {
        "notes.cells": b"",
        f"{10**30}.cells": b"",
        f"{gone}.cells": worker.read_bytes()[:-1],
        f"{gone + 1}.cells": b"{" * 256,
        f"{gone + 2}.cells": worker.read_bytes(),
    }
    for name, content in foreign.items():
        (directory / name).write_bytes(content)
    (directory / f"{gone + 2}.state").write_bytes(b"{")
    (directory / f"{gone + 3}.cells").mkdir()
    (directory / f"{gone + 4}.cells").symlink_to("vanished")
    for _ in range(2):
        assert minted(scrape(service)) == 1
        status = exchange(metrics_port(service), request_bytes("GET", "/status", [("Host", "x")]))
        assert status.status == 200
        assert b"dev-key-1" in status.body
    skipped = [Path(event["file"]).name for event in service.events if "skipping" in event["event"]]
    assert sorted(skipped) == sorted([*foreign, f"{gone + 3}.cells"])


def test_there_are_none_by_default(start_service: StartService) -> None:
    """No port, no directory, no path, and no prometheus-client in memory."""
    require_view_of_services()
    service = start_service({})
    service.mint()
    assert exchange(service.port, request_bytes("GET", "/metrics", [("Host", "x")])).status == 404
    listening = [
        each for each in psutil.Process(service.process.pid).net_connections() if each.status == "LISTEN"
    ]
    assert [each.laddr.port for each in listening] == [service.port]
    assert directories_of(service) == []
    imported = "import sys, macp_auth.entrypoints.server.processes; print('prometheus_client' in sys.modules)"
    asked = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True)
    assert asked.stdout == "False\n"


@pytest.mark.parametrize("path", ["/", "/tokens", "/healthz", "/metrics/", "/Metrics"])
def test_its_port_answers_nothing_else(measured: Service, path: str) -> None:
    """The metrics port does not mint."""
    port = metrics_port(measured)
    assert exchange(port, request_bytes("GET", path, [("Host", "x")])).status == 404
    with connection(port) as sock:
        sock.sendall(mint_bytes())
        assert read_answer(sock).status == 404
    assert exchange(port, request_bytes("POST", "/metrics", [("Host", "x")])).status == 405
    head = exchange(port, request_bytes("HEAD", "/metrics", [("Host", "x")]), method="HEAD")
    assert head.status == 200


def metrics_port(service: Service) -> int:
    [port] = [event["port"] for event in service.events if event["event"] == "metrics"]
    return int(port)


def test_prometheus_gets_openmetrics_if_it_asks(measured: Service) -> None:
    """In the format of its Accept header."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{metrics_port(measured)}/metrics",
        headers={"accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"},
    )
    with urllib.request.urlopen(request, timeout=HANG_SECONDS) as response:
        assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert response.read().endswith(b"# EOF\n")


@pytest.mark.parametrize("workers", WORKERS)
def test_a_port_that_is_taken_is_named_by_its_variable(workers: str) -> None:
    """Nothing starts, and the variable to change is in the message."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "macp_auth", "serve", "--port", str(free_port()), "--workers", workers],
            env=clean_environment({"MACP_AUTH_METRICS_PORT": str(port)}),
            capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
        )  # fmt: skip
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert f"can't listen on port {port} of MACP_AUTH_METRICS_HOST" in line
    assert "set MACP_AUTH_METRICS_PORT or MACP_AUTH_METRICS_HOST" in line


def test_the_port_of_the_tokens_is_taken_too() -> None:
    """One port for both is refused, not shared."""
    port = str(free_port())
    ended = subprocess.run(
        [sys.executable, "-m", "macp_auth", "serve", "--port", port],
        env=clean_environment({"MACP_AUTH_METRICS_PORT": port}),
        capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "MACP_AUTH_METRICS_PORT" in ended.stderr


def test_no_secret_is_exposed(start_service: StartService) -> None:
    """No sender, no scope, no token, and nothing of a private key, in the answer and in the files."""
    key = subprocess.run(
        [sys.executable, "-m", "macp_auth", "keys", "generate", "--alg", "ES256", "--kid", "k"],
        capture_output=True, text=True, check=True, env=clean_environment(),
    ).stdout  # fmt: skip
    service = start_service({**metrics_env(), "MACP_AUTH_SIGNING_KEY_JSON": key})
    token = service.mint(sender="agent://hidden", scopes={"secret-scope": "x"})["token"]
    wait_until(lambda: ready(service) == {("0",): 1}, within=HANG_SECONDS, what="ready")
    [directory] = directories_of(service)
    exposed = scrape(service).text.encode() + b"".join(path.read_bytes() for path in directory.iterdir())
    assert b'"k"' in exposed
    for secret in ("hidden", "secret-scope", *token.split("."), json.loads(key)["d"]):
        assert secret.encode() not in exposed


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_time_with_a_scraper_connected(
    start_service: StartService, workers: str, signum: signal.Signals
) -> None:
    """Prometheus keeps its connection open, which must not hold up the end."""
    service = start_service(metrics_env(), "--workers", workers)
    scrape(service)
    with connection(metrics_port(service)) as sock:
        sock.sendall(request_bytes("GET", "/metrics", [("Host", "x")]))
        assert read_answer(sock).status == 200
        service.process.send_signal(signum)
        assert service.process.wait(9) == 0
    assert "Traceback" not in service.log


def test_slow_scrapers_do_not_slow_the_tokens(start_service: StartService) -> None:
    """Connections that say nothing are the metrics port's own trouble."""
    service = start_service(metrics_env())
    port = metrics_port(service)
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    try:
        for _ in range(20):
            service.mint()
        assert minted(scrape(service)) == 20
    finally:
        for each in idle:
            each.close()


def test_a_port_that_is_none_is_refused() -> None:
    """By its variable, before anything listens."""
    ended = subprocess.run(
        [sys.executable, "-m", "macp_auth", "serve"],
        env=clean_environment({"MACP_AUTH_METRICS_PORT": "65536"}),
        capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "MACP_AUTH_METRICS_PORT must be a port from 1 to 65535" in ended.stderr


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain; version=x",
        "text/plain;version=\xb2",
        "application/openmetrics-text;version=x",
        "application/openmetrics-text;version=1.0.0;escaping=x, text/plain;version=",
        "text/plain;version=" + "9" * 5000,
        ";=,;;",
    ],
)
def test_an_accept_header_that_names_no_format_gets_one(start_service: StartService, accept: str) -> None:
    """It is a wish; and no request of this port makes a traceback."""
    env = metrics_env()
    service = start_service(env)
    port = int(env["MACP_AUTH_METRICS_PORT"])
    head = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: " + accept.encode("latin-1") + b"\r\n\r\n"
    answer = exchange(port, head, method="GET")
    assert answer.status == 200
    assert b"macp_auth_workers" in answer.body
    assert "Traceback" not in service.log


def test_raw_requests_to_the_metrics_make_no_fault(start_service: StartService) -> None:
    env = metrics_env()
    service = start_service(env)
    outcome = fuzz(int(env["MACP_AUTH_METRICS_PORT"]), 11, 300, path=b"/metrics")
    assert outcome.faults == []
    assert tracebacks(service.log) == 0
