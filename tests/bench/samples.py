"""Reports with made-up figures."""

from __future__ import annotations

from macp_auth.domain.keys import Algorithm
from tools.bench.figures import Spread, Spreads
from tools.bench.growth.report import Grown
from tools.bench.growth.report import Report as GrowthReport
from tools.bench.growth.series import SERIES
from tools.bench.machine import Machine
from tools.bench.report import ROWS, SCALING_ROWS, Report, Summary
from tools.bench.run import Workload
from tools.bench.subjects import BESIDE

MACHINE = Machine(
    cpu="Z80 <overclocked>",
    cores=2,
    memory_gib=8,
    load_average=0.5,
    python="3.11.0",
    versions={"uvicorn": "1"},
)
OF_OURS_ONLY = {"bare_us", "cpu_to_bare", "jwks_cpu_us"}


def figures(**medians: float) -> Spreads:
    """Every figure of a subject: 1, except the given ones."""
    every = {row.figure: 1.0 for row in ROWS} | medians
    return {name: Spread(value, value * 0.9, value * 1.1) for name, value in every.items()}


def of_another(**medians: float) -> Spreads:
    every = figures(**medians)
    return {name: spread for name, spread in every.items() if name not in OF_OURS_ONLY}


def bench_report(*, peer: str = "peer") -> Report:
    scaling = {row.figure: Spread(2, 1, 3) for row in SCALING_ROWS}
    return Report(
        machine=MACHINE,
        workload=Workload(seconds=3, connections=16),
        runs=3,
        workers=2,
        subjects=[
            Summary(Algorithm.RS256, "jwk-file", figures(cpu_us=400, bare_us=300), 0),
            Summary(BESIDE, peer, of_another(cpu_us=800), 0),
        ],
        scaling={Algorithm.RS256: scaling},
        failed=0,
    )


def growth_report() -> GrowthReport:
    points = {
        name: {
            size: {row.figure: Spread(size + 2, size + 1, size + 3) for row in each.rows}
            for size in each.sizes
        }
        for name, each in SERIES.items()
    }
    series = {name: Grown(found, Spread(0, -1, 1)) for name, found in points.items()}
    return GrowthReport(machine=MACHINE, seconds=2, runs=3, series=series, failed=0)
