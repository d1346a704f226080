"""One run of one algorithm: a fresh service, a load, and a bare signature on either side of it."""

from __future__ import annotations

from msgspec import Struct

from benchmarks import load, signature
from benchmarks.service import Service
from macp_auth.adapters import jose
from macp_auth.domain.keys import Algorithm

WARM_UP_SECONDS = 1


class Workload(Struct, frozen=True):
    """What every run is given."""

    seconds: int
    connections: int
    workers: int


class Figures(Struct, frozen=True, kw_only=True):
    """What a run measures."""

    tokens_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_token: float
    bare_us_before: float
    bare_us_after: float
    bare_us: float
    cpu_to_bare: float
    first_token_ms: float
    resident_mib: float


class Run(Struct, frozen=True):
    """The figures, and the failed requests that would make them worthless."""

    figures: Figures
    non_2xx: int
    socket_errors: int


def measure(algorithm: Algorithm, workload: Workload) -> Run:
    """Run once. The bare signature is measured while the service is idle."""
    key = jose.generate(algorithm)
    connections = workload.connections
    with Service({"MACP_AUTH_SIGNING_ALG": algorithm}, workload.workers) as service:
        first_token = service.wait_for_first_token()
        load.mint(service.port, seconds=WARM_UP_SECONDS, connections=connections)
        bare_before = signature.cpu_us(key)
        cpu_before = service.cpu_seconds()
        done = load.mint(service.port, seconds=workload.seconds, connections=connections)
        cpu = service.cpu_seconds() - cpu_before
        resident = service.resident_mib()
        bare_after = signature.cpu_us(key)
    bare = (bare_before + bare_after) / 2
    cpu_us_per_token = cpu * 1e6 / done.requests
    figures = Figures(
        tokens_per_second=done.requests / done.duration_us * 1e6,
        p50_ms=done.p50_us / 1e3,
        p99_ms=done.p99_us / 1e3,
        cpu_us_per_token=cpu_us_per_token,
        bare_us_before=bare_before,
        bare_us_after=bare_after,
        bare_us=bare,
        cpu_to_bare=cpu_us_per_token / bare,
        first_token_ms=first_token * 1e3,
        resident_mib=resident,
    )
    return Run(figures, done.non_2xx, done.socket_errors)
