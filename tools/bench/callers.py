"""The command line: ``python -m tools.bench.callers``, or ``make bench-callers``. What callers cost.

Times are CPU times of this process.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from macp_auth.adapters.callers.file import parse_callers
from macp_auth.domain.callers import Caller, Method
from macp_auth.entrypoints.logs import configure_logs
from tools.bench import command, credentials, machine
from tools.bench.figures import Run, Spreads, spreads
from tools.bench.machine import Machine
from tools.bench.tables import Row, Table, table

SIZES = (1_000, 10_000, 100_000)
GRANTS_OF_A_CALLER = 10
DECISIONS = 20_000
MOST_LOAD_SECONDS = 2
"""For 100,000 grants with one sender each, on the machine of docs/performance.md."""
MOST_LOAD_RATIO = 2
"""The same beside the TOML parser alone, on any machine."""
MOST_DECIDE_US = 10
ROWS = (Row("file, MB", "megabytes", 1), Row("load, s", "load_s", 2), Row("decide, us", "decide_us", 2))

ONE_SENDER = 'senders = ["agent-{}"]\n'
EVERY_KEY = """name = "grant-{0}"
senders = ["agent-{0}", "team-{0}-*"]
audiences = ["macp-runtime"]
max_ttl_seconds = 900
per_minute = 600
scopes = {{ allowed_modes = ["macp.mode.decision.v1", ""], can_start_sessions = true, max_open_sessions = 4 }}
"""
GRANTS = {"Grants with one sender": ONE_SENDER, "Grants with every key": EVERY_KEY}


class Figures(Struct, frozen=True):
    """What one file costs."""

    megabytes: float
    load_s: float
    """To parse and check it, and to index its grants."""
    decide_us: float
    """To find the grant for a sender."""


class Report(Struct, frozen=True):
    """All that the bench has to say."""

    machine: Machine
    runs: int
    files: Mapping[str, Mapping[int, Spreads]]
    """By title and number of grants."""
    credentials: Mapping[str, Spreads]
    """By name of the credential."""


def write(grants: int, form: str) -> bytes:
    """Return a callers file with so many grants of this form, 10 to a caller."""
    callers = []
    for first in range(0, grants, GRANTS_OF_A_CALLER):
        name = f"caller-{first // GRANTS_OF_A_CALLER}"
        callers.append(f'[[caller]]\nname = "{name}"\nspiffe_id = "spiffe://example.org/ns/macp/sa/{name}"\n')
        numbers = range(first, min(first + GRANTS_OF_A_CALLER, grants))
        callers += [f"[[caller.grant]]\n{form.format(number)}" for number in numbers]
    return "".join(callers).encode()


def measure(grants: int, form: str) -> Figures:
    """Load such a file, and decide with it, for the last grant of one caller after the other."""
    file = write(grants, form)
    begun = time.process_time()
    callers = parse_callers(file, "file", audience="macp-runtime", max_ttl_seconds=3600)
    loaded = time.process_time() - begun
    questions = [
        (Caller(f"caller-{last // GRANTS_OF_A_CALLER}", Method.SECRET, ""), _sender(last, form))
        for last in range(GRANTS_OF_A_CALLER - 1, grants, GRANTS_OF_A_CALLER)
    ]
    rounds = -(-DECISIONS // len(questions))
    begun = time.process_time()
    for _ in range(rounds):
        for caller, sender in questions:
            callers.grants.decide(caller, sender)
    decided = time.process_time() - begun
    return Figures(len(file) / 1e6, loaded, decided / (rounds * len(questions)) * 1e6)


def _sender(number: int, form: str) -> str:
    return f"team-{number}-a" if "team" in form else f"agent-{number}"


def as_text(report: Report) -> str:
    """Return what a terminal shows."""
    return _rendered(report, Table.as_text)


def as_markdown(report: Report) -> str:
    """Return what a page shows."""
    return _rendered(report, Table.as_markdown)


def _rendered(report: Report, form: Callable[[Table], str]) -> str:
    about = (
        f"{report.machine}.\n{GRANTS_OF_A_CALLER} grants to a caller; CPU time; "
        f"median (and range) of {report.runs} alternating run(s)."
    )
    return "\n\n".join([about, *map(form, tables(report))])


def tables(report: Report) -> list[Table]:
    """Return a table for each form of grants, with a row for each number of them, and one for credentials."""
    files = [
        table(title, {f"{grants:,}": figures for grants, figures in files.items()}, ROWS).turned()
        for title, files in report.files.items()
    ]
    return [*files, table(credentials.TITLE, report.credentials, credentials.ROWS).turned()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Bench, print, and return the exit status."""
    parser = argparse.ArgumentParser(prog="tools.bench.callers", description="What a callers file costs.")
    add = parser.add_argument
    add("--runs", type=command.count(100), default=3, help="of each file (default %(default)s)")
    add(
        "--grants", type=command.count(1_000_000), action="append", help="in the file; repeatable "
        f"(default {', '.join(map(str, SIZES))})",
    )  # fmt: skip
    command.add_outputs(parser)
    options = parser.parse_args(arguments)
    configure_logs()  # the service logs to standard error, as in a process of its own
    report = _measure(options.runs, options.grants or SIZES)
    rendering = command.Rendering(
        text=as_text(report), json=msgspec.json.encode(report).decode(), markdown=as_markdown(report)
    )
    return command.publish(rendering, options, block="callers", failed=0)


def _measure(runs: int, sizes: Sequence[int]) -> Report:
    here = machine.describe()
    found: dict[tuple[str, int], list[Run[Figures]]] = {
        (title, grants): [] for title in GRANTS for grants in sizes
    }
    for number in range(1, runs + 1):
        print(f"run {number} of {runs}", file=sys.stderr)
        for (title, grants), done in found.items():
            done.append(Run(measure(grants, GRANTS[title]), failed=0))
    files = {title: {grants: spreads(found[title, grants]) for grants in sizes} for title in GRANTS}
    return Report(here, runs, files, credentials.measure(runs))


if __name__ == "__main__":
    sys.exit(main())
