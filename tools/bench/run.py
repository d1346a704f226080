"""One run of one subject: a fresh server, a load, and a bare signature on either side of it."""

from __future__ import annotations

from functools import partial

from msgspec import Struct, structs

from macp_auth.adapters import jose
from macp_auth.domain.keys import Algorithm
from tools.bench import load, signature
from tools.bench.figures import Run
from tools.bench.meter import meter, meter_minting
from tools.bench.service import Server
from tools.bench.subjects import Subject

JWKS_SECONDS = 1


class Workload(Struct, frozen=True):
    """What every run is given."""

    seconds: int
    connections: int


class Figures(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run measures: the first of any server, the others of our service only."""

    tokens_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    first_token_ms: float
    resident_mib: float
    bare_us: float | None = None
    cpu_to_bare: float | None = None
    jwks_cpu_us: float | None = None


def measure(subject: Subject, workload: Workload) -> Run[Figures]:
    """Run once.

    Raises:
        ServerFailed: it did not start, or did not last.
        LoadFailed: there was no answer under load.
    """
    with subject.start() as server:
        first_token = server.wait_for_first_token()
        if subject.algorithm is None:
            return _under_load(server, workload, first_token)
        return _beside_its_signature(server, workload, first_token, subject.algorithm)


def _under_load(server: Server, workload: Workload, first_token: float) -> Run[Figures]:
    minting = meter_minting(server, seconds=workload.seconds, connections=workload.connections)
    figures = Figures(
        tokens_per_second=minting.load.per_second,
        p50_ms=minting.load.p50_us / 1e3,
        p99_ms=minting.load.p99_us / 1e3,
        cpu_us=minting.cpu_us,
        first_token_ms=first_token * 1e3,
        resident_mib=server.resident_mib(),
    )
    return Run(figures, minting.load.failed)


def _beside_its_signature(
    server: Server, workload: Workload, first_token: float, algorithm: Algorithm
) -> Run[Figures]:
    key = jose.generate(algorithm)
    bare_before = signature.cpu_us(key)  # the server is idle
    run = _under_load(server, workload, first_token)
    bare = (bare_before + signature.cpu_us(key)) / 2
    drive = partial(load.fetch_keys, server.port, seconds=JWKS_SECONDS, connections=workload.connections)
    fetching = meter(server, drive)
    figures = structs.replace(
        run.figures,
        bare_us=bare,
        cpu_to_bare=run.figures.cpu_us / bare,
        jwks_cpu_us=fetching.cpu_us,
    )
    return Run(figures, run.failed + fetching.load.failed)
