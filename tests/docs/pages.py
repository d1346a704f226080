"""Reads our Markdown: the pages, their code blocks, their tables, their headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


class Block(Struct, frozen=True):
    """A fenced code block."""

    language: str
    text: str


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(language, body) for language, body in found]


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def section(text: str, title: str) -> str:
    """What is below the heading ``title``, up to the next heading of any level."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"no heading {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row in ``text``, headings and rules left out."""
    return [row for table in _tables(text) for row in table[2:]]


def plain(cell: str) -> str:
    return cell.replace("`", "")


def slug(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    kept = re.sub(r"[^\w\- ]", "", plain(heading).strip().lower())
    return kept.replace(" ", "-")


def _tables(text: str) -> Iterator[list[list[str]]]:
    for lines in re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE):
        yield [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines.splitlines()]
