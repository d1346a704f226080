"""The figures as people and as programs read them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil
from msgspec import Struct, structs

from benchmarks.run import Figures, Run, Workload
from benchmarks.targets import Verdict
from macp_auth.domain.keys import Algorithm

ROWS = [
    # label, figure, decimals
    ("tokens/s", "tokens_per_second", 0),
    ("latency p50, ms", "p50_ms", 2),
    ("latency p99, ms", "p99_ms", 2),
    ("CPU per token, us", "cpu_us_per_token", 0),
    ("bare signature before, us", "bare_us_before", 1),
    ("bare signature after, us", "bare_us_after", 1),
    ("CPU per token : bare (mean)", "cpu_to_bare", 2),
    ("first token, ms", "first_token_ms", 0),
    ("resident memory, MiB", "resident_mib", 1),
]


class Machine(Struct, frozen=True):
    """Where the figures are from; without it they say little."""

    cpu: str
    cores: int
    python: str
    versions: dict[str, str]


class Summary(Struct, frozen=True):
    """All runs of one algorithm: each figure's median and range, and every failed request."""

    median: Figures
    low: Figures
    high: Figures
    non_2xx: int
    socket_errors: int
    runs: Sequence[Run]


class Report(Struct, frozen=True, omit_defaults=True):
    """All that the bench has to say."""

    machine: Machine
    workload: Workload
    algorithms: Mapping[Algorithm, Summary]
    targets: Sequence[Verdict] = ()


def describe_machine() -> Machine:
    """Describe this one, without its name."""
    packages = ("cryptography", "uvicorn", "litestar")
    return Machine(
        cpu=_cpu_model(),
        cores=psutil.cpu_count() or 1,
        python=platform.python_version(),
        versions={package: version(package) for package in packages},
    )


def summarise(runs: Sequence[Run]) -> Summary:
    """Put the runs of one algorithm together."""
    return Summary(
        median=_each(median, runs),
        low=_each(min, runs),
        high=_each(max, runs),
        non_2xx=sum(run.non_2xx for run in runs),
        socket_errors=sum(run.socket_errors for run in runs),
        runs=runs,
    )


def as_text(report: Report) -> str:
    """Return the machine's line, the table, and the verdicts if any were asked for."""
    return "\n".join(
        [
            _machine_line(report.machine),
            _workload_line(report),
            "",
            *_table(report.algorithms),
            *([""] if report.targets else []),
            *(_verdict_line(verdict) for verdict in report.targets),
        ]
    )


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux; platform.processor() knows no model there
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _each(choose: Callable[[Iterable[float]], float], runs: Sequence[Run]) -> Figures:
    return Figures(
        **{
            name: choose(getattr(run.figures, name) for run in runs)
            for name in structs.asdict(runs[0].figures)
        }
    )


def _machine_line(machine: Machine) -> str:
    versions = ", ".join(f"{package} {number}" for package, number in machine.versions.items())
    return f"{machine.cpu}, {machine.cores} cores; Python {machine.python}, {versions}"


def _workload_line(report: Report) -> str:
    workload, summary = report.workload, next(iter(report.algorithms.values()))
    return (
        f"{workload.seconds} s, {workload.connections} connections, {workload.workers} worker(s); "
        f"median (and range) of {len(summary.runs)} run(s)"
    )


def _table(algorithms: Mapping[Algorithm, Summary]) -> list[str]:
    summaries = algorithms.values()
    rows = [
        ["", *algorithms],
        *([label, *(_cell(s, figure, decimals) for s in summaries)] for label, figure, decimals in ROWS),
        ["answers that are not 2xx", *(f"{s.non_2xx:,}" for s in summaries)],
        ["socket errors", *(f"{s.socket_errors:,}" for s in summaries)],
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _cell(summary: Summary, figure: str, decimals: int) -> str:
    middle, low, high = (
        f"{getattr(figures, figure):,.{decimals}f}" for figures in (summary.median, summary.low, summary.high)
    )
    return middle if len(summary.runs) == 1 else f"{middle} ({low} to {high})"


def _verdict_line(verdict: Verdict) -> str:
    mark = "met   " if verdict.met else "MISSED"
    return f"{mark}  {verdict.target}: {verdict.found:,.2f}, at most {verdict.most:,.2f}"
