"""The command line: ``python -m tools.bench.growth``, or ``make bench-growth``.

Exits 0; 1 if something failed; 2 if it can't begin.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

import msgspec

from tools.bench import command, machine
from tools.bench.figures import failures, spreads
from tools.bench.growth import chart, report
from tools.bench.growth.series import SERIES, Point, Series

Points = Mapping[int, Point]
"""The figures by size."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Bench, print, and return the exit status."""
    options = _parse(arguments)
    return command.run(lambda: _bench(options))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools.bench.growth", description="How a token's cost grows.")
    add = parser.add_argument
    add("--seconds", type=command.count(3600), default=2, help="length of each load (default %(default)s)")
    add("--runs", type=command.count(100), default=3, help="of each series (default %(default)s)")
    add("--series", action="append", choices=list(SERIES), help="only this; repeatable")
    command.add_outputs(parser)
    command.add_chart(parser)
    return parser.parse_args(arguments)


def _bench(options: argparse.Namespace) -> int:
    result = _measure(options)
    rendering = command.Rendering(
        text=report.as_text(result),
        json=msgspec.json.encode(result).decode(),
        markdown=report.as_markdown(result),
        svg=chart.draw(result),
    )
    return command.publish(rendering, options, block="growth", failed=result.failed)


def _measure(options: argparse.Namespace) -> report.Report:
    here = machine.describe()
    runs: dict[str, list[Points]] = {name: [] for name in options.series or SERIES}
    for number in range(1, options.runs + 1):
        for name, done in runs.items():
            print(f"run {number} of {options.runs}: {name}", file=sys.stderr)
            series = SERIES[name]
            done.append({size: series.measure(size, options.seconds) for size in series.sizes})
    return report.Report(
        machine=here,
        seconds=options.seconds,
        runs=options.runs,
        series={name: _grown(SERIES[name], done) for name, done in runs.items()},
        failed=failures(point for done in runs.values() for points in done for point in points.values()),
    )


def _grown(series: Series, runs: Sequence[Points]) -> report.Grown:
    points = {size: spreads([run[size] for run in runs]) for size in series.sizes}
    return report.Grown(points, report.slope(series, runs))


if __name__ == "__main__":
    sys.exit(main())
