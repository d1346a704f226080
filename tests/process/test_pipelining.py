"""Thousands of tiny requests in one write, on many connections: little memory, and no delay for others."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from msgspec import Struct

from tests.support.flood import Flood
from tests.support.users import require_view_of_services
from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, wait_until
from tools.support.tls import Authority
from tools.support.tls_service import TLSService, tls_settings, trusting

pytestmark = pytest.mark.slow  # under load for seconds

CONNECTIONS = 200
FLOOD_SECONDS = 6
GROWTH = 32 * 2**20
"""The most that they may add to the resident memory."""
KEPT = 8 * 2**20
"""The most that a process keeps of it. Where malloc kept all, it was 17 to 28 MiB after two floods over TLS,
and grew."""
HEALTH_SECONDS = 0.1
"""What most probes take at most; a slow machine may have a few that take longer, though not long."""
SLOWEST_SECONDS = 2.0

StartService = Callable[..., Service]


class Observed(Struct, frozen=True):
    """What was seen of a service while it was flooded."""

    growth: int
    probes: list[float]
    answered: int


def observe(service: Service, *, reading: bool, secured: ssl.SSLContext | None = None) -> Observed:
    require_view_of_services()
    process = psutil.Process(service.process.pid)
    for _ in range(20):
        probe(service.port, secured)
    before = peak = process.memory_info().rss
    probes = []
    with Flood(service.port, CONNECTIONS, reading=reading, secured=secured) as flood:
        end = time.monotonic() + FLOOD_SECONDS
        while time.monotonic() < end:
            probes.append(probe(service.port, secured))
            peak = max(peak, process.memory_info().rss)
    wait_until(
        lambda: not process.net_connections("tcp")[1:], within=HANG_SECONDS, what="all connections are gone"
    )
    wait_until(
        lambda: process.memory_info().rss - before < KEPT, within=HANG_SECONDS, what="memory comes back"
    )
    return Observed(peak - before, probes, flood.read)


def probe(port: int, secured: ssl.SSLContext | None) -> float:
    """The seconds that ``GET /healthz`` takes on an open connection."""
    if secured is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
    else:
        connection = http.client.HTTPSConnection("localhost", port, timeout=HANG_SECONDS, context=secured)
    try:
        connection.connect()
        began = time.monotonic()
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        return time.monotonic() - began
    finally:
        connection.close()


def assert_bounded(observed: Observed) -> None:
    assert observed.growth < GROWTH
    probes = sorted(observed.probes)
    assert probes[len(probes) // 2] < HEALTH_SECONDS
    assert probes[-1] < SLOWEST_SECONDS


@pytest.mark.parametrize("reading", [True, False], ids=["answers read", "answers unread"])
def test_pipelined_requests_are_bounded(start_service: StartService, *, reading: bool) -> None:
    service = start_service({"MACP_AUTH_AUDIT_LOG": "off"})
    observed = observe(service, reading=reading)
    assert_bounded(observed)
    assert (observed.answered > 0) == reading
    assert "Traceback" not in service.log
    service.mint()


def test_pipelined_requests_are_bounded_without_a_client_certificate(tmp_path: Path) -> None:
    """In a TLS connection, where a token would need a certificate."""
    authority = Authority(tmp_path)
    env = {
        "MACP_AUTH_AUDIT_LOG": "off",
        "MACP_AUTH_TLS_CLIENT_CA_FILE": str(authority.path),
        **tls_settings(authority.issue("server")),
    }
    with TLSService(tmp_path, authority.path, env) as service:
        for _ in range(2):
            assert_bounded(observe(service, reading=True, secured=trusting(authority.path)))
        assert "Traceback" not in service.log
