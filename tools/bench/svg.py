"""Pieces of an SVG chart, on a card of its own: so it can be read on a light page and on a dark one."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2937 }
  .card { fill: #ffffff; stroke: #d1d5db }
  .title { font-size: 18px; font-weight: 600 }
  .heading { font-weight: 600 }
  .note { font-size: 12px; fill: #4b5563 }
  .grid { stroke: #e5e7eb }
  .range { stroke: #1f2937; stroke-width: 1.5 }
  .line { fill: none; stroke: #2563eb; stroke-width: 2 }
  .ours { fill: #60a5fa }
  .signature { fill: #1d4ed8 }
  .other { fill: #9ca3af }
  @media (prefers-color-scheme: dark) {
    text { fill: #e5e7eb }
    .card { fill: #111827; stroke: #374151 }
    .note { fill: #9ca3af }
    .grid { stroke: #374151 }
    .range { stroke: #f9fafb }
    .line { stroke: #60a5fa }
    .ours { fill: #93c5fd }
    .signature { fill: #3b82f6 }
    .other { fill: #6b7280 }
  }
"""


def document(width: int, height: int, title: str, shapes: Sequence[str]) -> str:
    """Return the whole file; ``title`` is what a screen reader says."""
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n"
        f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>\n'
        f"{body}\n</svg>\n"
    )


def text(x: float, y: float, content: str, kind: str = "label", anchor: str = "start") -> str:
    """Return a line of text whose base line begins, or by ``anchor`` ends or is centred, there."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(content)}</text>'


def bar(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Return a rectangle."""
    size = f'width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" {size}/>'


def line(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Return a line through the points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{path}"/>'


def dot(x: float, y: float, kind: str) -> str:
    """Return a small disc."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
