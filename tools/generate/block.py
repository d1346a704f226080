"""The generated part of a file, between two lines that say so."""

from __future__ import annotations

MARKDOWN = ("<!-- generated: make generate -->\n", "<!-- end -->\n")


def replaced(text: str, new: str, markers: tuple[str, str] = MARKDOWN) -> str:
    """``text`` with ``new`` in its first generated part.

    Raises:
        ValueError: it has no such part.
    """
    begin, end = markers
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"no {begin.strip()!r} and {end.strip()!r}")
    return f"{before}{begin}{new}{end}{after}"
