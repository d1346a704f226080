"""One port, one service: never two in silence, each with a key of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import pytest

from tests.support.ipv6 import needs_ipv6
from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, clean_environment, free_port

pytestmark = pytest.mark.slow  # services of their own


def serve(port: int, workers: str) -> subprocess.CompletedProcess[str]:
    """Try to serve on ``port``; fails the test if that does not end within 5 seconds."""
    return subprocess.run(
        [sys.executable, "-m", "macp_auth", "serve", "--port", str(port), "--workers", workers],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def assert_says_the_port_is_taken(ended: subprocess.CompletedProcess[str], port: int) -> None:
    assert ended.returncode == 2
    said = ended.stdout + ended.stderr
    assert f"port {port}" in said
    assert "PORT" in said
    assert "Traceback" not in said
    assert "listening" not in said


@pytest.mark.parametrize(("first", "second"), [("1", "1"), ("1", "2"), ("2", "1")])
def test_a_second_service_on_the_port_does_not_start(
    start_service: Callable[..., Service], first: str, second: str
) -> None:
    """And the first keeps serving, with its key."""
    service = start_service({}, "--workers", first)
    jwks = service.jwks()
    assert_says_the_port_is_taken(serve(service.port, second), service.port)
    for _ in range(20):
        assert service.jwks() == jwks


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_whose_listener_would_share_it_is_not_shared(workers: str) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert_says_the_port_is_taken(serve(port, workers), port)


def test_nobody_can_join_the_service_on_its_port(service: Service) -> None:
    with socket.socket() as intruder:
        intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            intruder.bind(("127.0.0.1", service.port))


def test_the_port_can_be_had_again_at_once(start_service: Callable[..., Service]) -> None:
    """Connections that the service before closed itself do not keep it."""
    service = start_service()
    with socket.create_connection(("127.0.0.1", service.port), timeout=HANG_SECONDS) as sock:
        sock.sendall(b"no HTTP\r\n\r\n")
        while sock.recv(1024):
            pass
    service.process.terminate()
    assert service.process.wait(10) == 0
    with socket.create_server(("127.0.0.1", service.port)):
        pass


@pytest.mark.parametrize("host", ["a..b", ".", "a" * 64, "no-such-host.invalid", "192.0.2.1"])
def test_a_host_that_cannot_be_listened_on(host: str) -> None:
    """The message names the variable, and not what is in it."""
    run = subprocess.run(
        [sys.executable, "-m", "macp_auth", "serve", "--port", str(free_port())],
        env=clean_environment({"MACP_AUTH_HOST": host}),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert run.returncode == 2
    assert "MACP_AUTH_HOST" in json.loads(run.stderr)["error"]
    assert host == "." or host not in run.stderr


@needs_ipv6
def test_all_addresses_are_those_of_both_families(start_service: Callable[..., Service]) -> None:
    """``::`` takes IPv4, too, for tokens, keys and metrics; a caller's address is written as it is."""
    metrics = free_port()
    env = {"MACP_AUTH_HOST": "::", "MACP_AUTH_METRICS_PORT": str(metrics)}
    service = start_service(env)
    for host in ("127.0.0.1", "[::1]"):
        service.url = f"http://{host}:{service.port}"
        service.mint()
        with urllib.request.urlopen(f"http://{host}:{metrics}/metrics", timeout=HANG_SECONDS) as response:
            assert response.status == 200
    service.__exit__()
    callers = [line["caller"] for line in service.audit_lines]
    assert callers == ["127.0.0.1", "::1"]


@pytest.mark.parametrize(
    ("host", "in_url"),
    [
        ("0.0.0.0", "localhost"),
        ("0", "localhost"),
        pytest.param("::", "localhost", marks=needs_ipv6),
        pytest.param("0:0:0:0:0:0:0:0", "localhost", marks=needs_ipv6),
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        pytest.param("::1", "[::1]", marks=needs_ipv6),
    ],
)
def test_the_log_has_urls_that_a_reader_can_use(
    start_service: Callable[..., Service], host: str, in_url: str
) -> None:
    """All addresses are none to connect to. The lines keep what it listens on."""
    keys, metrics = free_port(), free_port()
    service = start_service(
        {
            "MACP_AUTH_HOST": "127.0.0.1" if host == "::1" else host,
            "MACP_AUTH_JWKS_HOST": host,
            "MACP_AUTH_JWKS_PORT": str(keys),
            "MACP_AUTH_METRICS_HOST": host,
            "MACP_AUTH_METRICS_PORT": str(metrics),
        }
    )
    events = {event["event"]: event for event in service.events}
    of_keys, of_metrics = events["verification keys only"], events["metrics"]
    assert (of_keys["host"], of_keys["port"]) == (host, keys)
    assert (of_metrics["host"], of_metrics["port"]) == (host, metrics)
    assert of_keys["jwks_url"] == f"http://{in_url}:{keys}/.well-known/jwks.json"
    assert of_metrics["metrics_url"] == f"http://{in_url}:{metrics}/metrics"
    main = events["verification keys"]["jwks_url"]
    assert main == f"http://{'127.0.0.1' if host == '::1' else in_url}:{service.port}/.well-known/jwks.json"
    assert events["minting"]["mint_url"].startswith(f"POST {main.removesuffix('/.well-known/jwks.json')}/")
    for url in (of_keys["jwks_url"], of_metrics["metrics_url"], main):
        with urllib.request.urlopen(url, timeout=HANG_SECONDS) as response:
            assert response.status == 200
