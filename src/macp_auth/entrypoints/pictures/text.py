"""Draws a timeline for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from macp_auth.domain.rotation import State
from macp_auth.entrypoints.pictures.axis import Tick
from macp_auth.entrypoints.pictures.timeline import Row, Timeline

_LEAST_COLUMNS, _MOST_COLUMNS = 20, 50
"""Of the bars."""
_TICK_COLUMNS = 10
"""A tick has at least this much room, on average."""
_MARKS: dict[str, str] = {
    State.PRE_ACTIVATION: "\N{LIGHT SHADE}",
    State.ACTIVE: "\N{FULL BLOCK}",
    State.DEACTIVATED: "\N{DARK SHADE}",
}
_NOW = "|"


def as_text(timeline: Timeline, width: int) -> str:
    """Return the drawing for a terminal with ``width`` columns."""
    labels = _labels(timeline.rows)
    indent = max(map(len, labels)) + 2
    columns = min(max(width - indent, _LEAST_COLUMNS), _MOST_COLUMNS)
    pointer = None if timeline.now is None else _column(timeline, timeline.now, columns)
    ticks = timeline.ticks(timeline.begin, timeline.end, columns // _TICK_COLUMNS)
    legend = "  ".join(f"{_MARKS[state]} {state}: {meaning}" for state, meaning in timeline.meanings.items())
    lines = [
        timeline.headline,
        "",
        *([] if pointer is None else [" " * (indent + pointer) + "now"]),
        *(
            f"{label:<{indent}}{_bar(timeline, row, pointer, columns)}"
            for label, row in zip(labels, timeline.rows, strict=True)
        ),
        *(" " * indent + line for line in _axis(timeline, ticks, columns)),
        "",
        legend,
        *timeline.footnotes,
    ]
    return "\n".join(line.rstrip() for line in lines)


def _labels(rows: Sequence[Row]) -> list[str]:
    cells = [(row.label, row.detail, row.state) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells]


def _column(timeline: Timeline, moment: float, columns: int) -> int:
    return min(int(timeline.position(moment, 0) * columns), columns - 1)


def _bar(timeline: Timeline, row: Row, pointer: int | None, columns: int) -> str:
    cells = []
    for column in range(columns):
        moment = timeline.begin + (column + 0.5) / columns * (timeline.end - timeline.begin)
        if column == pointer and timeline.now is not None:
            moment = timeline.now  # who signs now, also if that begins or ends within the column
        marks = (
            _MARKS[period.name]
            for period in row.periods
            if (period.begin is None or period.begin <= moment)
            and (period.end is None or moment < period.end)
        )
        cells.append(next(marks, _NOW if column == pointer else " "))
    return "".join(cells)


def _axis(timeline: Timeline, ticks: list[Tick], columns: int) -> Iterator[str]:
    """Yield the ticks, their labels, and the days or years."""
    places = [_column(timeline, tick.at, columns) for tick in ticks]
    for texts in (["'"] * len(ticks), [tick.label for tick in ticks], [tick.context for tick in ticks]):
        line = ""
        for place, text in zip(places, texts, strict=True):
            apart = f"{line} " if line and text else line
            line = f"{apart:<{place}}{text}"
        yield line
