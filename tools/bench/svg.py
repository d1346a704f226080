"""The look of the benchmarks' charts."""

from __future__ import annotations

from collections.abc import Sequence

from macp_auth.entrypoints.pictures import svg
from macp_auth.entrypoints.pictures.svg import bar, text

__all__ = ["bar", "document", "dot", "line", "text"]

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


def line(points: Sequence[tuple[float, float]], kind: str) -> str:
    """Return a line through the points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{kind}" points="{path}"/>'


def dot(x: float, y: float, kind: str) -> str:
    """Return a small disc."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'


def document(width: int, height: int, title: str, shapes: Sequence[str]) -> str:
    """Return the whole file; ``title`` is what a screen reader says."""
    return svg.document(width, height, title=title, description="", style=STYLE, shapes=shapes)
