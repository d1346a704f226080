"""A page in a browser on the same machine gets no token; proxies and programs do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.metrics import metrics_env
from tools.support.processes import MINT_BODY, connection, mint_bytes
from tools.support.service import Service
from tools.support.wire import Answer, exchange, read_answer, request_bytes


def with_host(host: str) -> bytes:
    headers = [("Host", host), ("Content-Type", "application/json"), ("Content-Length", str(len(MINT_BODY)))]
    return request_bytes("POST", "/tokens", headers, MINT_BODY)


def assert_refused(answer: Answer) -> None:
    assert answer.status == 403
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["error"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Origin", "http://evil.example"),
        ("Origin", "http://localhost:3200"),
        ("Origin", "null"),
        ("Origin", ""),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Site", "none"),
        ("sec-fetch-site", "cross-site"),
    ],
)
def test_a_browser_gets_no_token(service: Service, name: str, value: str) -> None:
    """From any origin; the connection stays usable."""
    with connection(service.port) as sock:
        sock.sendall(mint_bytes((name, value)))
        assert_refused(read_answer(sock))
        sock.sendall(mint_bytes())
        assert read_answer(sock).status == 200


def test_what_is_open_is_open_to_browsers_too(service: Service) -> None:
    for method, path in (("GET", "/healthz"), ("GET", "/.well-known/jwks.json"), ("OPTIONS", "/tokens")):
        raw = request_bytes(method, path, [("Host", "a"), ("Origin", "http://evil.example")])
        assert exchange(service.port, raw, method=method).status == 200


def test_what_fetch_of_node_says_is_no_browser(service: Service) -> None:
    assert exchange(service.port, mint_bytes(("Sec-Fetch-Mode", "cors"))).status == 200


@pytest.mark.parametrize("host", ["evil.example", "EVIL.example", "localhost.evil.example", "127.evil"])
def test_a_foreign_host_with_our_port_gets_no_token(service: Service, host: str) -> None:
    """DNS rebinding: the name of a page leads to 127.0.0.1, and the browser connected to our port."""
    assert_refused(exchange(service.port, with_host(f"{host}:{service.port}")))


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "[::1]", "10.0.0.1"])
def test_our_own_names_and_addresses_get_a_token(service: Service, host: str) -> None:
    for port in (f":{service.port}", ":8080", ":", ""):
        assert exchange(service.port, with_host(host + port)).status == 200


def test_a_host_that_a_proxy_hands_on_gets_a_token(service: Service) -> None:
    """It has the port of the proxy, or none."""
    for host in ("auth.example.com", "auth.example.com:443", "macp_auth_tokens"):
        assert exchange(service.port, with_host(host)).status == 200


def test_beyond_loopback_any_host_gets_a_token(start_service: Callable[..., Service]) -> None:
    """The service does not know its names there."""
    service = start_service({"MACP_AUTH_HOST": "0.0.0.0"})
    assert exchange(service.port, with_host(f"auth.example.com:{service.port}")).status == 200
    assert_refused(exchange(service.port, mint_bytes(("Origin", "null"))))


def test_a_foreign_host_with_the_port_of_the_metrics_reads_nothing(
    start_service: Callable[..., Service],
) -> None:
    """As for tokens. A scraper names an address, localhost, or what a proxy on another port has."""
    env = metrics_env()
    start_service(env)
    port = int(env["MACP_AUTH_METRICS_PORT"])
    for path in ("/metrics", "/status"):
        assert_refused(exchange(port, request_bytes("GET", path, [("Host", f"evil.example:{port}")])))
        for host in (f"localhost:{port}", f"10.0.0.1:{port}", f"[fd00::1]:{port}", "metrics.example.com"):
            assert exchange(port, request_bytes("GET", path, [("Host", host)])).status == 200


def test_beyond_loopback_any_host_reads_the_metrics(start_service: Callable[..., Service]) -> None:
    """Prometheus may know the service by any name."""
    env = {**metrics_env(), "MACP_AUTH_METRICS_HOST": "0.0.0.0"}
    start_service(env)
    port = int(env["MACP_AUTH_METRICS_PORT"])
    answer = exchange(port, request_bytes("GET", "/metrics", [("Host", f"auth.example.com:{port}")]))
    assert answer.status == 200
