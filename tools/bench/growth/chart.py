"""The series as a picture: one panel each, with an axis from zero, so that a flat series looks flat."""

from __future__ import annotations

from collections.abc import Iterator

from tools.bench import svg
from tools.bench.growth.report import Grown, Report, slope_line
from tools.bench.growth.series import SERIES

WIDTH, MARGIN = 960, 24
TOP, FOOT = 60, 12
PANEL_WIDTH, PANEL_HEIGHT = 440, 220
PLOT_TOP, PLOT_HEIGHT = 56, 110
COLUMNS = 2
HEADROOM = 1.15  # of the scale over its largest value


def draw(report: Report) -> str:
    """Return the SVG document."""
    lines = -(-len(report.series) // COLUMNS)
    height = TOP + lines * PANEL_HEIGHT + FOOT
    title = "How the cost grows: flat is good, and each scale begins at zero"
    shapes = [svg.text(MARGIN, 36, title, "title")]
    for number, (name, grown) in enumerate(report.series.items()):
        x = MARGIN + number % COLUMNS * (PANEL_WIDTH + MARGIN)
        y = TOP + number // COLUMNS * PANEL_HEIGHT
        shapes += _panel(x, y, name, grown)
    shapes.append(svg.text(MARGIN, height - 18, str(report.machine), "note"))
    return svg.document(WIDTH, height, title, shapes)


def _panel(left: float, top: float, name: str, grown: Grown) -> Iterator[str]:
    series = SERIES[name]
    row = series.rows[0]
    spreads = [found[row.figure] for found in grown.points.values()]
    most = max(spread.high for spread in spreads) * HEADROOM
    floor = top + PLOT_TOP + PLOT_HEIGHT
    step = PANEL_WIDTH / len(spreads)
    columns = [left + (number + 0.5) * step for number in range(len(spreads))]

    def y(value: float) -> float:
        return floor - value / most * PLOT_HEIGHT

    yield svg.text(left, top + 18, f"{series.name}: {row.label}", "heading")
    yield svg.text(left, top + 36, slope_line(name, grown), "note")
    yield svg.line([(left, floor), (left + PANEL_WIDTH, floor)], "grid")
    yield svg.line([(x, y(each.median)) for x, each in zip(columns, spreads, strict=True)], "line")
    for x, size, spread in zip(columns, grown.points, spreads, strict=True):
        yield svg.line([(x, y(spread.low)), (x, y(spread.high))], "range")
        yield svg.dot(x, y(spread.median), "signature")
        yield svg.text(x, y(spread.high) - 9, f"{spread.median:,.{row.decimals}f}", anchor="middle")
        yield svg.text(x, floor + 18, f"{size:,}", "note", anchor="middle")
