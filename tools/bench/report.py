"""The figures as people and as programs read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from macp_auth.domain.keys import Algorithm
from tools.bench.figures import Spreads
from tools.bench.machine import Machine
from tools.bench.run import Workload
from tools.bench.tables import Row, Table, table
from tools.bench.targets import Verdict

ROWS = [
    Row("tokens/s", "tokens_per_second", 0),
    Row("latency p50, ms", "p50_ms", 2),
    Row("latency p99, ms", "p99_ms", 2),
    Row("CPU per token, us", "cpu_us", 0),
    Row("bare signature, us", "bare_us", 1),
    Row("CPU per token : bare signature", "cpu_to_bare", 2),
    Row("CPU per JWKS request, us", "jwks_cpu_us", 0),
    Row("first token, ms", "first_token_ms", 0),
    Row("resident memory, MiB", "resident_mib", 1),
]
SCALING_ROWS = [
    Row("tokens/s of one worker", "one_per_second", 0),
    Row("tokens/s of them all", "many_per_second", 0),
    Row("cores that wrk took from them", "load_cores", 2),
    Row("gain, with wrk's share given back", "gain", 2),
]


class Summary(Struct, frozen=True):
    """All runs of one subject, and every failed request."""

    group: str
    name: str
    figures: Spreads
    failed: int


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that the bench has to say."""

    machine: Machine
    workload: Workload
    runs: int
    workers: int
    """As many are compared with one in ``scaling``."""
    subjects: Sequence[Summary]
    scaling: Mapping[Algorithm, Spreads]
    failed: int
    targets: Sequence[Verdict] = ()

    def groups(self) -> dict[str, dict[str, Spreads]]:
        """Return the figures by group and name, in the order in which they were measured."""
        names = dict.fromkeys(subject.group for subject in self.subjects)
        return {
            group: {each.name: each.figures for each in self.subjects if each.group == group}
            for group in names
        }


def as_text(report: Report) -> str:
    """Return what a terminal shows, with the verdicts if any were asked for."""
    parts = [
        f"{report.machine}\n{_workload(report)}",
        *(each.as_text() for each in tables(report)),
        f"failed requests: {report.failed}",
        "\n".join(map(str, report.targets)),
    ]
    return "\n\n".join(filter(None, parts))


def as_markdown(report: Report) -> str:
    """Return what a page shows."""
    about = f"{report.machine}.\n{_workload(report)}; {report.failed} failed requests."
    return "\n\n".join([about, *(each.as_markdown() for each in tables(report))])


def tables(report: Report) -> list[Table]:
    """Return a table for each group, and one for the workers."""
    found = [table(group, columns, ROWS) for group, columns in report.groups().items()]
    if report.scaling:
        columns = {str(algorithm): figures for algorithm, figures in report.scaling.items()}
        found.append(table(f"{report.workers} workers", columns, SCALING_ROWS))
    return found


def _workload(report: Report) -> str:
    workload = report.workload
    return (
        f"One worker, {workload.seconds} s of {workload.connections} connections; "
        f"median (and range) of {report.runs} alternating run(s)"
    )
