"""Spans, where they are asked for: one a request, in the caller's trace, sent to a real OTLP receiver."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.otlp import Collector
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import mint_bytes
from tools.support.service import Service, clean_environment, free_port, wait_until
from tools.support.wire import exchange, request_bytes

pytestmark = pytest.mark.slow  # services of their own

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SOON = 30  # seconds: a bound for a hang; the spans are sent every tenth of one
ON = {"MACP_AUTH_TRACES": "otlp", "MACP_AUTH_SIGNING_ALG": "ES256", "OTEL_BSP_SCHEDULE_DELAY": "100"}

Start = Callable[..., Service]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def test_a_request_is_a_span_in_the_caller_s_trace(start_service: Start, collector: Collector) -> None:
    """Named by its path if that is one of ours; probes are none; the last ones are sent at the end."""
    service = start_service({**ON, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    assert exchange(service.port, mint_bytes(("traceparent", f"00-{TRACE}-{PARENT}-01"))).status == 200
    service.jwks()
    assert exchange(service.port, request_bytes("GET", "/invented", [("Host", "x")])).status == 404
    service.get("/readyz")
    service.__exit__()
    spans = {span.name: span for span in collector.spans}
    assert spans.keys() == {"POST /tokens", "GET /.well-known/jwks.json", "GET"}
    assert len(collector.spans) == 3
    mint = spans["POST /tokens"]
    assert (mint.trace_id.hex(), mint.parent_span_id.hex()) == (TRACE, PARENT)
    assert spans["GET"].trace_id.hex() != TRACE
    assert collector.services == {"macp-auth"}
    assert "agent://risk" not in str(collector.spans)


def test_addresses_of_ipv4_are_written_as_such(start_service: Start, collector: Collector) -> None:
    """Also where the service listens on both families."""
    host = {"MACP_AUTH_HOST": "::"}
    service = start_service({**ON, **host, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    service.jwks()
    service.__exit__()
    [span] = collector.spans
    assert "127.0.0.1" in str(span.attributes)
    assert "::ffff:" not in str(span.attributes)


def test_a_request_for_the_keys_only_is_a_span(start_service: Start, collector: Collector) -> None:
    """The listener for the keys has the same names."""
    port = free_port()
    keys = {"MACP_AUTH_JWKS_PORT": str(port), "MACP_AUTH_ISSUER": "https://auth.example.com"}
    service = start_service({**ON, **keys, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    paths = ("/.well-known/jwks.json", "/.well-known/openid-configuration", "/tokens", "/healthz")
    statuses = [exchange(port, request_bytes("GET", path, [("Host", "x")])).status for path in paths]
    assert statuses == [200, 200, 404, 200]
    service.__exit__()
    assert sorted(span.name for span in collector.spans) == sorted(f"GET {path}" for path in paths[:3])


def test_the_log_names_the_span(start_service: Start, collector: Collector) -> None:
    """To lay the two side by side. The service's name may be set as OpenTelemetry says."""
    vault = {
        "MACP_AUTH_SIGNER": "vault-transit",
        "MACP_AUTH_VAULT_KEY": "k",
        "MACP_AUTH_VAULT_ADDR": "http://127.0.0.1:1",
        "MACP_AUTH_VAULT_TOKEN": "t",
    }
    tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "mint-3"}
    service = start_service({**ON, **vault, **tracing})
    assert exchange(service.port, mint_bytes()).status == 503
    wait_until(lambda: collector.spans, within=SOON, what="the span")
    [span] = [span for span in collector.spans if span.name == "POST /tokens"]
    [line] = [event for event in service.events if event["event"] == "no signature"]
    assert line["traceparent"].startswith(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-")
    assert collector.services == {"mint-3"}


def test_a_collector_that_is_not_there_changes_nothing(start_service: Start) -> None:
    """Tokens are minted, and the service ends in time."""
    service = start_service({**ON, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    for _ in range(20):
        service.mint()
    began = time.monotonic()
    service.__exit__()
    assert time.monotonic() - began < HANG_SECONDS
    assert service.process.returncode == 0


def test_without_the_extra_the_service_does_not_start(tmp_path: Path) -> None:
    """And says what to install."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ImportError\n")
    ended = subprocess.run(
        [sys.executable, "-m", "macp_auth", "serve", "--port", str(free_port())],
        env=clean_environment({**ON, "PYTHONPATH": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert ended.returncode == 2
    assert "macp-auth[otel]" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_off_needs_no_extra(start_service: Start, tmp_path: Path) -> None:
    """Nothing of OpenTelemetry is imported."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ImportError\n")
    assert start_service({"PYTHONPATH": str(tmp_path)}).mint()["token"]
