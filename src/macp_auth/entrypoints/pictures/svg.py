"""Pieces of an SVG picture.

A length is a number of pixels, or a percentage such as ``"12.5%"`` of the width of the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from macp_auth.domain.visible import escaped

Length = float | str


def document(  # noqa: PLR0913 - the parts of a picture
    width: int, height: int, *, title: str, description: str, style: str, shapes: Iterable[str]
) -> str:
    """Return a whole file, on a card of its own, so that it can be read on a light page and on a dark one.

    Args:
        width: in pixels; the picture scales.
        height: in pixels.
        title: what the picture is.
        description: what it shows, for those who can't see it.
        style: the CSS of its classes, and of ``card``.
        shapes: its elements.
    """
    view = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    card = f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>'
    return _image(view, title, description, [f"<style>{style}</style>", card, *shapes]) + "\n"


def inline(height: int, *, title: str, description: str, shapes: Iterable[str]) -> str:
    """Return an element for an HTML page, which has the CSS; it is as wide as there is room."""
    return _image(f'width="100%" height="{height}"', title, description, shapes)


def _image(size: str, title: str, description: str, shapes: Iterable[str]) -> str:
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title description">\n'
        f'<title id="title">{plain(title)}</title>\n<desc id="description">{plain(description)}</desc>\n'
        f"{body}\n</svg>"
    )


def group(x: Length, y: float, shapes: Iterable[str], *, width: Length = "100%") -> str:
    """Return ``shapes`` moved to this place; their percentages are of ``width``."""
    body = "".join(f"\n{shape}" for shape in shapes)
    return f'<svg x="{_length(x)}" y="{y:.1f}" width="{_length(width)}" overflow="visible">{body}\n</svg>'


def text(  # noqa: PLR0913 - its place, its text, its look
    x: Length, y: float, content: str, kind: str = "label", anchor: str = "start", *, dx: float = 0
) -> str:
    """Return a line of text whose base line begins, or by ``anchor`` ends or is centred, there."""
    return runs(x, y, [(content, "")], kind, anchor, dx=dx)


def runs(  # noqa: PLR0913 - as of a text
    x: Length,
    y: float,
    contents: Sequence[tuple[str, str]],
    kind: str = "label",
    anchor: str = "start",
    *,
    dx: float = 0,
) -> str:
    """Return a line of texts, each with a class."""
    moved = f' dx="{dx:g}"' if dx else ""
    body = "".join(
        f'<tspan class="{own}">{plain(content)}</tspan>' if own else plain(content)
        for content, own in contents
        if content
    )
    return f'<text class="{kind}" x="{_length(x)}" y="{y:.1f}"{moved} text-anchor="{anchor}">{body}</text>'


def bar(x: Length, y: float, width: Length, height: float, kind: str) -> str:
    """Return a rectangle."""
    size = f'width="{_length(width)}" height="{height:.1f}"'
    return f'<rect class="{kind}" x="{_length(x)}" y="{y:.1f}" {size}/>'


def segment(start: tuple[Length, float], end: tuple[Length, float], kind: str) -> str:
    """Return a straight line."""
    (x1, y1), (x2, y2) = start, end
    ends = f'x1="{_length(x1)}" y1="{y1:.1f}" x2="{_length(x2)}" y2="{y2:.1f}"'
    return f'<line class="{kind}" {ends}/>'


def triangle(x: Length, y: float, corners: str, kind: str) -> str:
    """Return a filled path with its origin at this place; ``corners`` are in pixels from there."""
    return group(x, y, [f'<path class="{kind}" d="{corners}"/>'])


def _length(length: Length) -> str:
    return length if isinstance(length, str) else f"{length:.1f}"


def plain(content: str) -> str:
    """Return ``content`` as the text of an element, here or in HTML."""
    return escape(escaped(content))
