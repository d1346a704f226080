"""The command line: ``python -m tools.bench``, or ``make bench``.

Exits 0; 1 if something failed or, with --target-check, a target was missed; 2 if it can't begin.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import chain

import msgspec

from macp_auth.domain.keys import Algorithm
from tools.bench import chart, command, machine, report, subjects, targets
from tools.bench.figures import Run, failures, spreads
from tools.bench.run import Figures, Workload, measure
from tools.bench.scaling import Scaling, compare
from tools.bench.subjects import SIGNERS, Subject


def main(arguments: Sequence[str] | None = None) -> int:
    """Bench, print, and return the exit status."""
    options = _parse(arguments)
    return command.run(lambda: _bench(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools.bench", description="What a token costs.")
    add = parser.add_argument
    add("--seconds", type=command.count(3600), default=3, help="length of each load (default %(default)s)")
    add("--connections", type=command.count(1000), default=16, help="kept by wrk (default %(default)s)")
    add("--runs", type=command.count(100), default=3, help="of each subject (default %(default)s)")
    add("--alg", action="append", choices=[each.value for each in Algorithm], help="only this; repeatable")
    add("--signer", action="append", choices=list(SIGNERS), help="only this; repeatable")
    add("--workers", type=command.count(64), default=2, help="to compare with one (default %(default)s)")
    add("--peer", metavar="COMMAND", help="starts another service, to stand beside this one on port $PORT")
    add(
        "--peer-env",
        action="append",
        type=_variable,
        default=[],
        metavar="NAME=VALUE",
        help="a variable for the peer; repeatable",
    )
    command.add_outputs(parser)
    command.add_chart(parser)
    add("--target-check", action="store_true", help="exit 1 if a target is missed")
    return parser.parse_args(arguments)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError("must be NAME=VALUE")
    return name, value


def _bench(options: argparse.Namespace) -> int:
    result = _measure(options)
    if options.target_check:
        result = msgspec.structs.replace(result, targets=_judge(result))
    rendering = command.Rendering(
        text=report.as_text(result),
        json=msgspec.json.encode(result).decode(),
        markdown=report.as_markdown(result),
        svg=chart.draw(result),
    )
    missed = not all(verdict.met for verdict in result.targets)
    return command.publish(rendering, options, block="bench", failed=result.failed) or int(missed)


def _measure(options: argparse.Namespace) -> report.Report:
    here = machine.describe()
    workload = Workload(options.seconds, options.connections)
    algorithms = list(dict.fromkeys(map(Algorithm, options.alg or Algorithm)))
    compared = list(_subjects(options, algorithms))
    _rehearse(compared)
    runs: list[list[Run[Figures]]] = [[] for _ in compared]
    comparisons: dict[Algorithm, list[Run[Scaling]]] = {algorithm: [] for algorithm in algorithms}
    for number in range(1, options.runs + 1):
        print(f"run {number} of {options.runs}", file=sys.stderr)
        for subject, done in zip(compared, runs, strict=True):  # alternating: a slow spell falls on all
            done.append(measure(subject, workload))
        for algorithm, done_comparing in comparisons.items():
            done_comparing.append(compare(algorithm, options.workers, options.seconds))
    summaries = [_summarise(subject, done) for subject, done in zip(compared, runs, strict=True)]
    return report.Report(
        machine=here,
        workload=workload,
        runs=options.runs,
        workers=options.workers,
        subjects=summaries,
        scaling={algorithm: spreads(done) for algorithm, done in comparisons.items()},
        failed=failures(chain(*runs, *comparisons.values())),
    )


def _rehearse(compared: Sequence[Subject]) -> None:
    """Start each once: what does not mint is found out now, and no first run reads cold files."""
    for subject in compared:
        with subject.start() as server:
            server.wait_for_first_token()


def _subjects(options: argparse.Namespace, algorithms: Sequence[Algorithm]) -> list[Subject]:
    ours = [
        subjects.of_service(algorithm, signer)
        for algorithm in algorithms
        for signer in dict.fromkeys(options.signer or SIGNERS)
    ]
    peers = [subjects.of_peer(options.peer, dict(options.peer_env))] if options.peer else []
    return [*ours, subjects.of_echo(), *peers]


def _summarise(subject: Subject, runs: Sequence[Run[Figures]]) -> report.Summary:
    return report.Summary(subject.group, subject.name, spreads(runs), failures(runs))


def _judge(result: report.Report) -> list[targets.Verdict]:
    ours = (each for each in result.subjects if each.group != subjects.BESIDE)
    judged = (targets.judge_service(Algorithm(each.group), each.name, each.figures) for each in ours)
    scaling = targets.judge_scaling(result.scaling, workers=result.workers, cores=result.machine.cores)
    return [*chain.from_iterable(judged), *scaling]


if __name__ == "__main__":
    sys.exit(main())
