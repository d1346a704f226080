"""The navigation: a list of links on an index page is the tree below that page.

So the tree is written once, and reads well where Markdown is shown without this site. A page that no index
page lists is an orphan, which Sphinx reports.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any, NamedTuple

INDEX_PAGES = (
    "docs/index",
    "docs/tutorials",
    "docs/how-to",
    "docs/reference",
    "docs/explanation",
    "docs/project",
    "docs/adr/README",
)
_HEADING = re.compile(r"^## (.+)$")
_ITEM = re.compile(r"^- \[(?P<title>[^\]]+)\]\((?P<page>[^)#:]+)\.md\)")
_ROW = re.compile(r"^\| \[[^\]]+\]\((?P<page>[^)#:]+)\.md\)")


class Entry(NamedTuple):
    """A page of the navigation."""

    page: str
    title: str | None
    """Of the list item; None for a row of a table, whose page has its own."""


def entries(text: str) -> dict[str, list[Entry]]:
    """Return the pages that ``text`` lists below each heading; those before the first below ``""``."""
    heading, found = "", dict[str, list[Entry]]()
    for line in text.splitlines():
        if match := _HEADING.match(line):
            heading = match[1]
        elif match := _ITEM.match(line) or _ROW.match(line):
            found.setdefault(heading, []).append(Entry(match["page"], match.groupdict().get("title")))
    return found


def _add_tree(_app: Any, name: str, source: list[str]) -> None:
    if name not in INDEX_PAGES:
        return
    folder = posixpath.dirname(name)
    for heading, listed in entries(source[0]).items():
        caption = [f":caption: {heading}"] if heading else []
        lines = [_line(entry, folder) for entry in listed]
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", *caption, "", *lines, "```", ""])


def _line(entry: Entry, folder: str) -> str:
    path = "/" + posixpath.normpath(posixpath.join(folder, entry.page))
    return path if entry.title is None else f"{entry.title} <{path}>"


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", _add_tree)
    return {"parallel_read_safe": True}
