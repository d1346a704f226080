"""No request within the limits costs more than 5 ms of CPU: measured on a running service.

What is measured is the process's own CPU time, which a busy machine stretches but little, and the least
of a few runs counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec import Struct

from macp_auth.entrypoints.server.protocol import MAX_CHUNKS
from tools.fuzz.costly import BODIES, BOUND_SECONDS, PATTERN, REQUESTS, chunked, cpu_seconds
from tools.support.processes import mint_bytes, wait_for_reading
from tools.support.service import Service
from tools.support.wire import Answer, exchange

RUNS = 30
CHEAP = mint_bytes(body=b'{"sender":"agent://a-b"}')


class Measured(Struct):
    """A service, and what a cheap request costs it."""

    service: Service
    cheap: float = 0.0

    def cost(self, raw: bytes) -> tuple[float, Answer]:
        """What the service spends on a request, all that comes after the answer included."""
        before = cpu_seconds(self.service.process.pid)
        answer = exchange(self.service.port, raw, method=raw.split(b" ", 1)[0].decode())
        wait_for_reading(self.service)
        return cpu_seconds(self.service.process.pid) - before, answer


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    env = {"MACP_AUTH_SIGNING_ALG": "ES256", "MACP_AUTH_SENDER_PATTERN": PATTERN}
    with Service(tmp_path_factory.mktemp("cost"), env) as service:
        measured = Measured(service)
        measured.cheap = min(measured.cost(CHEAP)[0] for _ in range(10))
        yield measured


@pytest.mark.parametrize(
    "raw",
    [
        *(pytest.param(mint_bytes(body=body), id=name) for name, body in BODIES.items()),
        *(pytest.param(raw, id=name) for name, raw in REQUESTS.items()),
    ],
)
def test_no_request_costs_much(raw: bytes, measured: Measured) -> None:
    """With any body and headers."""
    least = float("inf")
    for _ in range(RUNS):
        cost, answer = measured.cost(raw)
        assert answer.status < 500
        least = min(least, cost - measured.cheap)
        if least < BOUND_SECONDS:
            return
    pytest.fail(f"{least * 1000:.1f} ms")


@pytest.mark.parametrize(("pieces", "status"), [(MAX_CHUNKS - 1, 200), (MAX_CHUNKS, 413)])
def test_a_body_has_so_many_chunks(pieces: int, status: int, service: Service) -> None:
    """The last one, of no bytes, counts too."""
    body = b'{"sender":"a"}'.ljust(pieces)
    answer = exchange(service.port, chunked(body, 1))
    assert answer.status == status
    if status != 200:
        assert answer.json == {"error": "the request has too many chunks"}
