"""The bench as a picture: what a token costs, and how many come, beside the bare signature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from tools.bench import svg
from tools.bench.figures import Spread, Spreads
from tools.bench.report import Report

WIDTH, MARGIN = 960, 24
LABELS_END = 190
ROW, BAR = 26, 14
TOP, FOOT = 92, 74
VALUE_WIDTH = 60
BARE = "bare signature"


class Panel(Struct, frozen=True):
    """One figure of every subject, on one scale."""

    title: str
    figure: str
    left: float
    right: float
    most: float

    def width(self, value: float) -> float:
        return value / self.most * (self.right - VALUE_WIDTH - self.left)


def draw(report: Report) -> str:
    """Return the SVG document."""
    groups = {name: _with_bare(columns) for name, columns in report.groups().items()}
    rows = [figures for columns in groups.values() for figures in columns.values()]
    middle = (LABELS_END + WIDTH) / 2
    panels = [
        _panel("CPU per token, us: shorter is better", "cpu_us", LABELS_END, middle - 12, rows),
        _panel("tokens/s of one worker: longer is better", "tokens_per_second", middle, WIDTH - MARGIN, rows),
    ]
    height = TOP + (len(rows) + len(groups)) * ROW + FOOT
    shapes = [
        svg.text(MARGIN, 36, "What a token costs", "title"),
        svg.text(MARGIN, 56, _headline(report), "note"),
        *(svg.text(panel.left, TOP - 12, panel.title, "heading") for panel in panels),
        *_groups(groups, panels),
        *_foot(report, height),
    ]
    return svg.document(WIDTH, height, f"What a token costs. {_headline(report)}", shapes)


def _with_bare(columns: dict[str, Spreads]) -> dict[str, Spreads]:
    """Put the bare signature first, as if it were a subject."""
    bare = [figures["bare_us"] for figures in columns.values() if "bare_us" in figures]
    if not bare:
        return dict(columns)
    cost = Spread(bare[0].median, min(each.low for each in bare), max(each.high for each in bare))
    return {BARE: {"cpu_us": cost}, **columns}


def _panel(title: str, figure: str, left: float, right: float, rows: Sequence[Spreads]) -> Panel:
    return Panel(title, figure, left, right, max(each[figure].high for each in rows if figure in each))


def _groups(groups: dict[str, dict[str, Spreads]], panels: Sequence[Panel]) -> Iterator[str]:
    y = float(TOP)
    for group, columns in groups.items():
        yield svg.text(MARGIN, y + BAR, group, "heading")
        y += ROW
        for name, figures in columns.items():
            kind = _kind(name, figures)
            label = f"macp-auth, {name}" if kind == "ours" else name
            yield svg.text(LABELS_END - 10, y + BAR - 2, label, anchor="end")
            for panel in panels:
                if panel.figure in figures:
                    yield from _bar(panel, y, kind, figures)
            y += ROW


def _kind(name: str, figures: Spreads) -> str:
    if name == BARE:
        return "signature"
    return "ours" if "bare_us" in figures else "other"


def _bar(panel: Panel, y: float, kind: str, figures: Spreads) -> Iterator[str]:
    spread = figures[panel.figure]
    yield svg.bar(panel.left, y, panel.width(spread.median), BAR, kind)
    if kind == "ours" and panel.figure == "cpu_us":
        yield svg.bar(panel.left, y, panel.width(figures["bare_us"].median), BAR, "signature")
    low, high = (panel.left + panel.width(value) for value in (spread.low, spread.high))
    yield svg.line([(low, y + BAR / 2), (high, y + BAR / 2)], "range")
    yield svg.text(high + 6, y + BAR - 2, f"{spread.median:,.0f}")


def _foot(report: Report, height: int) -> Iterator[str]:
    y = height - FOOT + 20
    x = float(MARGIN)
    for kind, meaning, width in (
        ("signature", "the signature, by cryptography alone", 260),
        ("ours", "the rest of macp-auth", 170),
        ("other", "not macp-auth", 130),
    ):
        yield svg.bar(x, y - 10, 12, 12, kind)
        yield svg.text(x + 18, y, meaning, "note")
        x += width
    yield svg.line([(x, y - 4), (x + 14, y - 4)], "range")
    yield svg.text(x + 20, y, f"range of {report.runs} runs", "note")
    yield svg.text(MARGIN, y + 22, str(report.machine), "note")
    yield svg.text(MARGIN, y + 38, f"{report.workload.connections} connections", "note")


def _headline(report: Report) -> str:
    """Say the one thing that the picture is for."""
    ratios: dict[str, str] = {}
    for subject in report.subjects:
        if ratio := subject.figures.get("cpu_to_bare"):
            ratios.setdefault(subject.group, f"{subject.group} {ratio.median:.2f}")  # of its first signer
    found = ", ".join(ratios.values())
    return f"CPU of the whole service for a token, as a multiple of the bare signature: {found}"
