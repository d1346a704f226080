"""Tables of figures, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from msgspec import Struct, structs

from tools.bench.figures import Spread, Spreads


class Row(Struct, frozen=True):
    """How one figure is shown."""

    label: str
    figure: str
    decimals: int

    def cell(self, spread: Spread | None) -> str:
        if spread is None:
            return "-"
        middle, low, high = (
            f"{value:,.{self.decimals}f}" for value in (spread.median, spread.low, spread.high)
        )
        return middle if low == high else f"{middle} ({low} to {high})"


class Table(Struct, frozen=True):
    """Some columns of the same rows."""

    title: str
    cells: Sequence[Sequence[str]]
    """Row by row. The first is the columns' names, and the first of each row its label."""

    def turned(self) -> Self:
        """Return it with rows for columns."""
        return structs.replace(self, cells=list(zip(*self.cells, strict=True)))

    def as_text(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in self.cells]
        return "\n".join([self.title, *lines])

    def as_markdown(self) -> str:
        heading, *rows = ["| " + " | ".join(row) + " |" for row in self.cells]
        rule = "|" + "---|" * len(self.cells[0])
        return "\n".join([f"**{self.title}**", "", heading, rule, *rows])


def table(title: str, columns: Mapping[str, Spreads], rows: Sequence[Row]) -> Table:
    """Make a table. A row that no column has a figure for is left out."""
    shown = [row for row in rows if any(row.figure in column for column in columns.values())]
    cells = [[row.label, *(row.cell(column.get(row.figure)) for column in columns.values())] for row in shown]
    return Table(title, [["", *columns], *cells])
