"""The command line: ``python -m tools.bench.vault``, or ``make bench-vault``.

All in one run, alternating: a slow spell of the machine falls on all of them. OpenBao has one half of
this machine's cores, as it has a machine of its own where it matters; the other half is for the service
and its load, or for the bare calls. With --shared, all take what they get.

Exits 0; 1 if requests failed; 2 if it can't begin.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import msgspec

from tools.bench import command, machine
from tools.bench.figures import Run, failures, spreads
from tools.bench.vault import measure, report
from tools.support.openbao import OpenBao


def main(arguments: Sequence[str] | None = None) -> int:
    """Bench, print, and return the exit status."""
    options = _parse(arguments)
    return command.run(lambda: _bench(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools.bench.vault", description="What a token costs whose key is in Vault."
    )
    add = parser.add_argument
    add("--seconds", type=command.count(3600), default=3, help="length of each load (default %(default)s)")
    add("--runs", type=command.count(100), default=3, help="of each algorithm (default %(default)s)")
    add("--shared", action="store_true", help="let Vault share all cores")
    command.add_outputs(parser)
    return parser.parse_args(arguments)


def _bench(options: argparse.Namespace) -> int:
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # bare hvac's pool is smaller than the threads
    result = _measure(options)
    rendering = command.Rendering(
        text=report.as_text(result),
        json=msgspec.json.encode(result).decode(),
        markdown=report.as_markdown(result),
    )
    return command.publish(rendering, options, block="vault", failed=result.failed)


def _measure(options: argparse.Namespace) -> report.Report:
    here = machine.describe()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        with nullcontext() if options.shared else _on_half_of_the_cores():
            bao = stack.enter_context(OpenBao(Path(directory)))
        runs: dict[str, list[Run[measure.Signing]]] = {algorithm: [] for algorithm in measure.KEY_TYPES}
        for algorithm, key_type in measure.KEY_TYPES.items():
            bao.create_key(algorithm, key_type)
        for number in range(1, options.runs + 1):
            for algorithm, done in runs.items():
                print(f"run {number} of {options.runs}: {algorithm}", file=sys.stderr)
                done.append(measure.signing(bao, algorithm, options.seconds))
        reading = measure.reading(bao, options.seconds)
    return report.Report(
        machine=here,
        placement="Vault shares the cores" if options.shared else "Vault has half of the cores",
        seconds=options.seconds,
        runs=options.runs,
        signing={algorithm: spreads(done) for algorithm, done in runs.items()},
        reading=spreads([reading]),
        failed=failures([reading, *(run for done in runs.values() for run in done)]),
    )


@contextmanager
def _on_half_of_the_cores() -> Iterator[None]:
    """What is started meanwhile has the second half of them; afterwards, this process has the first."""
    cores = sorted(os.sched_getaffinity(0))
    middle = len(cores) // 2
    os.sched_setaffinity(0, cores[middle:])
    yield
    os.sched_setaffinity(0, cores[:middle] or cores)


if __name__ == "__main__":
    sys.exit(main())
