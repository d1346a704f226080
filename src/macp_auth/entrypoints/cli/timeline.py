"""Draws keys over time: one bar per key, from publication to removal, with the signing period marked."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from msgspec import Struct

from macp_auth.domain.rotation import Lifetime, State
from macp_auth.entrypoints.cli.times import duration, utc

_COLUMNS = 60
_LABEL_CHARS, _ELLIPSIS = 24, "\N{HORIZONTAL ELLIPSIS}"
_MARGIN = 0.08  # of the drawn time, before the first event and after the last
_SHORTEST_WINDOW = 600.0  # seconds
_SIGNS, _PUBLISHED, _NOW = "\N{FULL BLOCK}", "\N{LIGHT SHADE}", "|"


class _Bar(Struct, frozen=True):
    """The bar of one key; times in seconds since the epoch."""

    label: str
    begin: float
    signs_from: float
    signs_until: float
    end: float


class _Window(Struct, frozen=True):
    """The drawn period; times in seconds since the epoch."""

    begin: float
    end: float

    def position(self, moment: float, width: float) -> float:
        """Return where ``moment`` is on a line of ``width``."""
        return (min(max(moment, self.begin), self.end) - self.begin) / (self.end - self.begin) * width


def as_text(lifetimes: Sequence[Lifetime], now: float) -> str:
    """Return the drawing for a terminal."""
    window = _window(lifetimes, now)
    labels = [_label(life) for life in lifetimes]
    indent = max(map(len, labels)) + 2
    pointer = int(window.position(now, _COLUMNS - 1))
    column = duration((window.end - window.begin) / _COLUMNS)
    return "\n".join(
        [
            " " * (indent + pointer) + "now",
            *(f"{bar.label:<{indent}}{_line(bar, window, pointer)}" for bar in _bars(lifetimes, window)),
            f"{'':<{indent}}{utc(window.begin)}{utc(window.end):>{_COLUMNS - 20}}",
            f"{'':<{indent}}{_SIGNS} signs  {_PUBLISHED} published  * active  a column is {column}",
        ]
    )


def _line(bar: _Bar, window: _Window, pointer: int) -> str:
    cells = []
    for column in range(_COLUMNS):
        moment = window.begin + (column + 0.5) * (window.end - window.begin) / _COLUMNS
        if bar.signs_from <= moment < bar.signs_until:
            cells.append(_SIGNS)
        elif bar.begin <= moment < bar.end:
            cells.append(_PUBLISHED)
        else:
            cells.append(_NOW if column == pointer else " ")
    return "".join(cells).rstrip()


_SVG_WIDTH, _SVG_LABELS, _SVG_ROW = 960, 300, 34
_FILLS = {"published": "#c9d7e8", "signs": "#2b6cb0"}


def as_svg(lifetimes: Sequence[Lifetime], now: float) -> str:
    """Return the drawing as an SVG document."""
    window = _window(lifetimes, now)
    height = (len(lifetimes) + 2) * _SVG_ROW
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_SVG_WIDTH} {height}",
            "font-family": "sans-serif",
            "font-size": "13",
        },
    )
    for row, bar in enumerate(_bars(lifetimes, window), 1):
        _text(svg, 8, row * _SVG_ROW + 15, bar.label)
        _rectangle(svg, _x(window, bar.begin), _x(window, bar.end), row, "published")
        _rectangle(svg, _x(window, bar.signs_from), _x(window, bar.signs_until), row, "signs")
    x = _x(window, now)
    line = {"x1": f"{x:.1f}", "x2": f"{x:.1f}", "y1": "24", "y2": str(height - _SVG_ROW), "stroke": "#c53030"}
    ET.SubElement(svg, "line", line)
    _text(svg, x - 12, 18, "now")
    _text(svg, _SVG_LABELS, height - 10, utc(window.begin))
    _text(svg, _SVG_WIDTH - 160, height - 10, utc(window.end))
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def _rectangle(svg: ET.Element, left: float, right: float, row: int, kind: str) -> None:
    if right > left:
        attributes = {
            "x": f"{left:.1f}",
            "y": str(row * _SVG_ROW),
            "width": f"{right - left:.1f}",
            "height": "20",
            "fill": _FILLS[kind],
        }
        ET.SubElement(ET.SubElement(svg, "rect", attributes), "title").text = kind


def _text(svg: ET.Element, x: float, y: float, text: str) -> None:
    ET.SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}"}).text = text


def _x(window: _Window, moment: float) -> float:
    return _SVG_LABELS + window.position(moment, _SVG_WIDTH - _SVG_LABELS - 20)


def _window(lifetimes: Sequence[Lifetime], now: float) -> _Window:
    moments = [now]
    for life in lifetimes:
        known = (life.status.version.created_at, life.signs_from, life.signs_until, life.leaves)
        moments += [moment for moment in known if moment is not None]
    begin, end = min(moments), max(moments)
    margin = max((end - begin) * _MARGIN, (_SHORTEST_WINDOW - (end - begin)) / 2, 1.0)
    return _Window(begin - margin, end + margin)


def _bars(lifetimes: Sequence[Lifetime], window: _Window) -> list[_Bar]:
    """Return the bars; an unknown time is at the edge of the window."""
    bars = []
    for life in lifetimes:
        version = life.status.version
        end = window.end if life.leaves is None else life.leaves
        signs_from = window.begin if life.signs_from is None else life.signs_from
        signs_until = window.end if life.signs_until is None else life.signs_until
        begin = min(signs_from, window.begin if version.created_at is None else version.created_at)
        if not version.can_sign:
            begin, signs_from, signs_until = window.begin, window.end, window.end
        bars.append(_Bar(_label(life), begin, signs_from, signs_until, end))
    return bars


def _label(life: Lifetime) -> str:
    version = life.status.version
    mark = "*" if life.status.state is State.ACTIVE else " "
    kid = version.kid if len(version.kid) <= _LABEL_CHARS else version.kid[: _LABEL_CHARS - 1] + _ELLIPSIS
    return f"{mark} {kid} {version.algorithm.value}"
