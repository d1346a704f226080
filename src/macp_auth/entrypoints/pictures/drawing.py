"""Draws a timeline as SVG: a file of its own, or an element of a page.

Places along the time are percentages and everything else is in pixels, so on a narrow page the bars
shrink and the text does not. What has no room there has the class ``wide``.
"""

from __future__ import annotations

from collections.abc import Iterator

from macp_auth.entrypoints.pictures import svg
from macp_auth.entrypoints.pictures.timeline import Period, Row, Timeline

_OUTAGE = "outage"
_WIDTH = 800
"""Of a file, in pixels."""
_WIDE = 700
"""From this width on, in pixels, there is room for all."""
_NARROW = 340
"""The narrowest page, in pixels."""
_STYLE = """
  .picture text { font: 13px system-ui, sans-serif; fill: var(--text) }
  .picture .strong { font-weight: 600 }
  .picture .note, .picture .tick { font-size: 12px; fill: var(--muted) }
  .picture .grid { stroke: var(--grid) }
  .picture .span { stroke: var(--muted) }
  .picture .now { stroke: var(--now); stroke-width: 2 }
  .picture text.now { fill: var(--now); font-weight: 600 }
  .picture .over { stroke: var(--card) }
  .picture .over, .picture .word { paint-order: stroke; stroke-width: 4px; stroke-linejoin: round }
  .picture .pre-activation { fill: var(--pre); stroke: var(--pre-edge); stroke-dasharray: 4 3 }
  .picture .active { fill: var(--active); stroke: var(--active) }
  .picture .deactivated { fill: var(--old); stroke: var(--old-edge) }
  .picture .revoked { fill: var(--revoked); stroke: var(--now); stroke-dasharray: 1 3 }
  .picture .outage { fill: var(--now); opacity: .15 }
  .picture text.word { fill: var(--text); stroke-dasharray: none; font-size: 12px }
  .picture text.pre-activation { stroke: var(--pre) }
  .picture text.active { stroke: var(--active); fill: var(--on-active); font-weight: 600 }
  .picture text.deactivated { stroke: var(--old) }
  .picture text.revoked { stroke: var(--revoked) }
"""
_BY_WIDTH = f"""\
  @media (min-width: {_WIDE}px) {{ .picture .narrow {{ display: none }} }}
  @media (max-width: {_WIDE - 0.1}px) {{ .picture .wide {{ display: none }} }}
"""
_LIGHT = """
    --text: #1f2937; --muted: #4b5563; --grid: #e5e7eb; --card: #ffffff; --edge: #d1d5db; --now: #c81e1e;
    --active: #1d4ed8; --on-active: #ffffff; --pre: #eef4ff; --pre-edge: #2563eb;
    --old: #e5e7eb; --old-edge: #6b7280; --revoked: #fde8e8;
"""
_DARK = """
    --text: #e5e7eb; --muted: #9ca3af; --grid: #374151; --card: #111827; --edge: #374151; --now: #f87171;
    --active: #3b82f6; --on-active: #06132e; --pre: #14213d; --pre-edge: #60a5fa;
    --old: #374151; --old-edge: #6b7280; --revoked: #451a1a;
"""
STYLE = (
    f"\n  :root {{ color-scheme: light dark;{_LIGHT}  }}\n"
    f"  @media (prefers-color-scheme: dark) {{ :root {{{_DARK}  }} }}{_STYLE}{_BY_WIDTH}"
)
"""The CSS of a page with a picture in it."""
_FILE_STYLE = (
    STYLE + "  .card { fill: var(--card); stroke: var(--edge) }\n"
    "  .picture .title { font-size: 18px; font-weight: 600 }\n"
    "  .picture .headline { font-size: 14px }\n"
)

_SIDE = 2.5  # percent of the width: the margin at each side of a file
_PLOT = 100 - 2 * _SIDE
_HEAD, _FOOT, _FOOTNOTE = 68, 20, 16  # of a file: title and headline; below; each footnote
_LEGEND, _LEGEND_COLUMNS = 24, 3
_LEGEND_AT = (0, 42, 66)  # percent
_NOW, _AXIS = 18, 38
_BAR_TOP, _BAR, _ROW, _SPANS = 20, 22, 58, 20
_MOST_TICKS = {"wide": 8, "narrow": 4}
_TICK_EDGE = {"wide": 0.02, "narrow": 0.07}
_EDGE = 0.15
"""Nearer to an edge than this part of the width, a text begins or ends at its place."""
_CHARACTER = 6.3
"""The usual width of one in pixels."""
_PADDING = 7


def as_file(timeline: Timeline) -> str:
    """Return an SVG document."""
    height = _HEAD + _height(timeline) + _FOOT + _FOOTNOTE * len(timeline.footnotes)
    shapes = [
        svg.group(f"{_SIDE}%", 0, _around(timeline, height), width=f"{_PLOT}%"),
        svg.group(f"{_SIDE}%", _HEAD, _plot(timeline, _WIDTH), width=f"{_PLOT}%"),
    ]
    return svg.document(
        _WIDTH,
        height,
        title=timeline.title,
        description=timeline.description,
        style=_FILE_STYLE,
        shapes=['<g class="picture">', *shapes, "</g>"],
    )


def as_element(timeline: Timeline) -> str:
    """Return an element of an HTML page with :data:`STYLE`."""
    return svg.inline(
        _height(timeline),
        title=timeline.title,
        description=timeline.description,
        shapes=['<g class="picture">', *_plot(timeline, _WIDE), "</g>"],
    )


def _around(timeline: Timeline, height: int) -> Iterator[str]:
    """Yield what is above and below the plot of a file."""
    yield svg.text(0, 34, timeline.title, "title")
    yield svg.text(0, 56, timeline.headline, "headline")
    for number, line in enumerate(timeline.footnotes):
        yield svg.text(0, height - _FOOTNOTE * (len(timeline.footnotes) - number), line, "note")


def _height(timeline: Timeline) -> int:
    return _top(timeline) + sum(map(_row_height, timeline.rows)) + 4


def _top(timeline: Timeline) -> int:
    """Return where the rows begin."""
    return _legend_height(timeline) + _AXIS + (0 if timeline.now is None else _NOW)


def _legend_height(timeline: Timeline) -> int:
    entries = len(timeline.meanings) + bool(timeline.outages)
    return -(-entries // _LEGEND_COLUMNS) * _LEGEND


def _row_height(row: Row) -> int:
    return _ROW + (_SPANS if row.spans else 0)


def _plot(timeline: Timeline, width: int) -> Iterator[str]:
    yield from _legend(timeline)
    yield from _grid(timeline)
    top, bottom = _top(timeline), _height(timeline)
    for outage in timeline.outages:
        left, right = timeline.position(outage.begin, 0), timeline.position(outage.end, 1)
        yield svg.bar(_percent(left), top - 4, _percent(right - left), bottom - top, _OUTAGE)
    for row, y in _placed(timeline):
        for period in row.periods:
            yield from _bar(timeline, period, y + _BAR_TOP)
    if timeline.now is not None:
        yield from _now(timeline, timeline.now, bottom)
    for row, y in _placed(timeline):
        yield from _texts(timeline, row, y, width)


def _placed(timeline: Timeline) -> Iterator[tuple[Row, int]]:
    """Yield each row and where it begins."""
    y = _top(timeline)
    for row in timeline.rows:
        yield row, y
        y += _row_height(row)


def _legend(timeline: Timeline) -> Iterator[str]:
    entries = {**timeline.meanings, **({_OUTAGE: "no verifier can fetch"} if timeline.outages else {})}
    for number, (name, meaning) in enumerate(entries.items()):
        x = f"{_LEGEND_AT[number % _LEGEND_COLUMNS]}%"
        y = number // _LEGEND_COLUMNS * _LEGEND
        swatch = svg.bar(1, 2, 14, 14, name)
        words = svg.runs(22, 14, [(name, "strong"), (f": {meaning}", "wide")])
        yield svg.group(x, y, [swatch, words])


def _grid(timeline: Timeline) -> Iterator[str]:
    labels = _legend_height(timeline) + 12
    for kind, most in _MOST_TICKS.items():
        for tick in timeline.ticks(timeline.begin, timeline.end, most):
            place = timeline.position(tick.at, 0)
            x, edge = _percent(place), _TICK_EDGE[kind]
            yield svg.segment((x, labels + 20), (x, _height(timeline)), f"grid {kind}")
            if edge <= place <= 1 - edge:
                yield svg.text(x, labels, tick.label, f"tick {kind}", "middle")
                if tick.context:
                    yield svg.text(x, labels + 14, tick.context, f"tick {kind}", "middle")


def _bar(timeline: Timeline, period: Period, y: int) -> Iterator[str]:
    left, right = timeline.position(period.begin, 0), timeline.position(period.end, 1)
    if right <= left:
        return
    yield svg.bar(_percent(left), y, _percent(right - left), _BAR, period.name)
    middle = _BAR / 2
    if period.begin is None or period.begin < timeline.begin:
        yield svg.triangle("0%", y, f"M0 0 L-6 {middle} L0 {_BAR} Z", period.name)
    if period.end is None or period.end > timeline.end:
        yield svg.triangle("100%", y, f"M0 0 L6 {middle} L0 {_BAR} Z", period.name)


def _now(timeline: Timeline, now: float, bottom: int) -> Iterator[str]:
    place = timeline.position(now, 0)
    y = _top(timeline) - 6
    yield svg.segment((_percent(place), y + 4), (_percent(place), bottom), "now")
    yield svg.text(_percent(place), y, "now", "now over", "middle")


def _texts(timeline: Timeline, row: Row, y: int, width: int) -> Iterator[str]:
    label = [
        (row.label, "strong"),
        (f" \N{MIDDLE DOT} {row.detail}" if row.detail else "", "wide"),
        (f" \N{MIDDLE DOT} {row.state}" if row.state else "", ""),
        (f", {row.note}" if row.note else "", "wide"),
    ]
    yield svg.runs(0, y + 13, label, "over")
    for period in row.periods:
        yield from _word(timeline, period, y + _BAR_TOP + 15, width)
    for span in row.spans:
        yield from _span(timeline, span, y + _BAR_TOP + _BAR + 6)


def _word(timeline: Timeline, period: Period, y: int, width: int) -> Iterator[str]:
    """Yield the name of the state, if there is room in a picture of ``width`` pixels or more."""
    left, right = timeline.position(period.begin, 0), timeline.position(period.end, 1)
    needed = len(period.name) * _CHARACTER + 2 * _PADDING
    room = right - left
    if room * width < needed:
        return
    kind = f"word {period.name}" if room * _NARROW >= needed else f"word {period.name} wide"
    yield svg.text(_percent(left), y, period.name, kind, dx=_PADDING)


def _span(timeline: Timeline, span: Period, y: int) -> Iterator[str]:
    left, right = timeline.position(span.begin, 0), timeline.position(span.end, 1)
    if right <= left:
        return
    yield svg.segment((_percent(left), y), (_percent(right), y), "span")
    for end in (left, right):
        yield svg.segment((_percent(end), y - 3), (_percent(end), y + 3), "span")
    middle = (left + right) / 2
    at = {"start": left, "middle": middle, "end": right}[_anchor(middle)]
    yield svg.text(_percent(at), y + 14, span.name, "note over", _anchor(middle))


def _anchor(place: float) -> str:
    return "start" if place < _EDGE else "end" if place > 1 - _EDGE else "middle"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}%"
