"""The figures of each series, and how steep they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import linear_regression

from msgspec import Struct

from tools.bench.figures import Spread, Spreads
from tools.bench.growth.series import ALGORITHM, SERIES, Point, Series
from tools.bench.machine import Machine
from tools.bench.tables import Table, table


class Grown(Struct, frozen=True):
    """One series, measured."""

    points: Mapping[int, Spreads]
    """By size."""
    slope: Spread
    """What its step more adds to its first figure."""


class Report(Struct, frozen=True, kw_only=True):
    """All that the bench has to say."""

    machine: Machine
    seconds: int
    runs: int
    series: Mapping[str, Grown]
    failed: int


def slope(series: Series, runs: Sequence[Mapping[int, Point]]) -> Spread:
    """Fit a line to each run, and return how steep they are."""
    figure = series.rows[0].figure
    return Spread.of(
        linear_regression(list(run), [getattr(each.figures, figure) for each in run.values()]).slope
        * series.step
        for run in runs
    )


def as_text(report: Report) -> str:
    """Return what a terminal shows."""
    about = f"{report.machine}\n{_workload(report)}"
    shown = (
        f"{_table(name, grown).as_text()}\n{slope_line(name, grown)}" for name, grown in report.series.items()
    )
    return "\n\n".join([about, *shown, f"failed requests: {report.failed}"])


def as_markdown(report: Report) -> str:
    """Return what a page shows."""
    about = f"{report.machine}.\n{_workload(report)}; {report.failed} failed requests."
    shown = (
        f"{_table(name, grown).as_markdown()}\n\n{slope_line(name, grown)}"
        for name, grown in report.series.items()
    )
    return "\n\n".join([about, *shown])


def slope_line(name: str, grown: Grown) -> str:
    """Say how steep the series is."""
    series = SERIES[name]
    label = series.rows[0].label
    low, middle, high = (
        f"{value:+,.1f}" for value in (grown.slope.low, grown.slope.median, grown.slope.high)
    )
    return f"Slope for {series.step:,} more: {label} {middle} ({low} to {high})"


def _table(name: str, grown: Grown) -> Table:
    series = SERIES[name]
    columns = {f"{size:,}": found for size, found in grown.points.items()}
    return table(series.name, columns, series.rows).turned()


def _workload(report: Report) -> str:
    return (
        f"One worker, {ALGORITHM}, {report.seconds} s a point; "
        f"median (and range) of {report.runs} alternating run(s)"
    )
