"""Draws a timeline for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from macp_auth.domain.rotation import State
from macp_auth.entrypoints.pictures.axis import Tick
from macp_auth.entrypoints.pictures.timeline import Row, Timeline

_COLUMNS = 50
_MOST_TICKS = 5
_MARKS: dict[str, str] = {
    State.PRE_ACTIVATION: "\N{LIGHT SHADE}",
    State.ACTIVE: "\N{FULL BLOCK}",
    State.DEACTIVATED: "\N{DARK SHADE}",
}
_NOW = "|"


def as_text(timeline: Timeline) -> str:
    """Return the drawing."""
    labels = _labels(timeline.rows)
    indent = max(map(len, labels)) + 2
    pointer = None if timeline.now is None else _column(timeline, timeline.now)
    ticks = timeline.ticks(timeline.begin, timeline.end, _MOST_TICKS)
    legend = "  ".join(f"{_MARKS[state]} {state}: {meaning}" for state, meaning in timeline.meanings.items())
    lines = [
        timeline.headline,
        "",
        *([] if pointer is None else [" " * (indent + pointer) + "now"]),
        *(
            f"{label:<{indent}}{_bar(timeline, row, pointer)}"
            for label, row in zip(labels, timeline.rows, strict=True)
        ),
        *(" " * indent + line for line in _axis(timeline, ticks)),
        "",
        legend,
        *timeline.footnotes,
    ]
    return "\n".join(line.rstrip() for line in lines)


def _labels(rows: Sequence[Row]) -> list[str]:
    cells = [(row.label, row.detail, row.state) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells]


def _column(timeline: Timeline, moment: float) -> int:
    return min(int(timeline.position(moment, 0) * _COLUMNS), _COLUMNS - 1)


def _bar(timeline: Timeline, row: Row, pointer: int | None) -> str:
    cells = []
    for column in range(_COLUMNS):
        moment = timeline.begin + (column + 0.5) / _COLUMNS * (timeline.end - timeline.begin)
        marks = (
            _MARKS[period.name]
            for period in row.periods
            if (period.begin is None or period.begin <= moment)
            and (period.end is None or moment < period.end)
        )
        cells.append(next(marks, _NOW if column == pointer else " "))
    return "".join(cells)


def _axis(timeline: Timeline, ticks: list[Tick]) -> Iterator[str]:
    """Yield the ticks, their labels, and the days or years."""
    columns = [_column(timeline, tick.at) for tick in ticks]
    for texts in (["'"] * len(ticks), [tick.label for tick in ticks], [tick.context for tick in ticks]):
        line = ""
        for column, text in zip(columns, texts, strict=True):
            line = f"{line:<{column}}{text}"
        yield line
