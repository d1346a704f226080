"""The command line: ``python -m benchmarks.bench``, or ``make bench``.

Exits 0; 1 if requests failed or, with --target-check, a target was missed; 2 if it can't begin.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Callable, Sequence

import msgspec
import psutil

from benchmarks import report, targets
from benchmarks.load import LoadFailed
from benchmarks.run import Run, Workload, measure
from benchmarks.service import ServiceFailed
from macp_auth.domain.keys import Algorithm

INTERRUPTED = 130  # as a shell reports an end by Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Bench, print, and return the exit status."""
    options = _parse(arguments)
    if shutil.which("wrk") is None:
        return _complain("wrk is not installed; it is in Debian's package `wrk`", status=2)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it, too, stops the service
    try:
        result = _bench(options)
    except (ServiceFailed, LoadFailed, psutil.Error) as error:
        return _complain(str(error), status=1)
    except KeyboardInterrupt:
        return _complain("interrupted; the service is stopped", status=INTERRUPTED)
    print(msgspec.json.encode(result).decode() if options.json else report.as_text(result))
    return _judge(result)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.bench", description="What a token costs.")
    add = parser.add_argument
    add("--seconds", type=_count(3600), default=8, help="length of each load (default %(default)s)")
    add("--connections", type=_count(1000), default=16, help="kept open by wrk (default %(default)s)")
    add("--workers", type=_count(64), default=1, help="of the service (default %(default)s)")
    add("--runs", type=_count(100), default=3, help="of each algorithm (default %(default)s)")
    add("--alg", action="append", choices=[each.value for each in Algorithm], help="only this; repeatable")
    add("--json", action="store_true", help="print JSON in place of the table")
    add("--target-check", action="store_true", help="exit 1 if a target is missed")
    return parser.parse_args(arguments)


def _count(most: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not (text.isdecimal() and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most}")
        return int(text)

    return count


def _bench(options: argparse.Namespace) -> report.Report:
    workload = Workload(options.seconds, options.connections, options.workers)
    runs: dict[Algorithm, list[Run]] = {Algorithm(name): [] for name in options.alg or Algorithm}
    for number in range(1, options.runs + 1):
        for algorithm, done in runs.items():  # alternating, so that a slow spell falls on all of them
            print(f"run {number} of {options.runs}: {algorithm}", file=sys.stderr)
            done.append(measure(algorithm, workload))
    summaries = {algorithm: report.summarise(done) for algorithm, done in runs.items()}
    medians = {algorithm: summary.median for algorithm, summary in summaries.items()}
    verdicts = targets.judge(medians, workers=options.workers) if options.target_check else []
    return report.Report(report.describe_machine(), workload, summaries, verdicts)


def _judge(result: report.Report) -> int:
    failed = sum(summary.non_2xx + summary.socket_errors for summary in result.algorithms.values())
    if failed:
        return _complain(f"{failed} requests failed: the figures are worthless", status=1)
    return 0 if all(verdict.met for verdict in result.targets) else 1


def _complain(what: str, *, status: int) -> int:
    print(f"bench: {what}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
