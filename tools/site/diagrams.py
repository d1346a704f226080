"""Mermaid diagrams, drawn when the site is built: one picture for light pages and one for dark ones.

A page needs no script for them, and a diagram that Mermaid refuses fails the build.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import mermaidx
from docutils import nodes
from sphinx.util.docutils import SphinxDirective


def _theme(text: str, line: str, fill: str, note: str, *, dark: bool) -> dict[str, Any]:
    return {
        "darkMode": dark,
        "fontSize": "14px",  # larger, and Mermaid breaks names at the edges
        "background": "transparent",
        "primaryColor": fill,
        "primaryTextColor": text,
        "primaryBorderColor": line,
        "lineColor": line,
        "textColor": text,
        "titleColor": text,
        "clusterBkg": "transparent",
        "clusterBorder": line,
        "edgeLabelBackground": "#14181e" if dark else "#ffffff",
        "noteBkgColor": note,
        "noteTextColor": text,
        "noteBorderColor": line,
    }


# By the class with which the site's theme shows a picture.
_THEMES = {
    "only-light": _theme("#222832", "#5f6b7a", "#e8f4f5", "#fdf6e3", dark=False),
    "only-dark": _theme("#ced6dd", "#9aa5b1", "#1f3a40", "#3a3522", dark=True),
}
_CONFIG = {
    "theme": "base",
    "themeCSS": ".edgeLabel rect { opacity: 1 !important }",  # no line through the text
    "fontFamily": "DejaVu Sans, Verdana, sans-serif",  # measured with the first; the second is as wide
    "htmlLabels": False,
    "flowchart": {"htmlLabels": False, "wrappingWidth": 280, "rankSpacing": 40, "nodeSpacing": 60},
    "sequence": {"actorMargin": 15, "width": 110, "mirrorActors": False},
}


class Diagram(SphinxDirective):
    """A fenced block of Mermaid."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        source = "\n".join(self.content)
        folder = Path(self.env.srcdir, self.config.generated_folder)
        pictures = nodes.container(classes=["diagram"])
        for shown, theme in _THEMES.items():
            config = {**_CONFIG, "themeVariables": theme}
            name = hashlib.sha256(f"{config}{source}".encode()).hexdigest()[:16]
            path = folder / f"diagram-{name}.svg"
            if not path.exists():
                try:
                    picture = mermaidx.render(source, config=config).svg()
                except RuntimeError as error:
                    raise self.error(str(error)) from error
                path.write_text(picture, encoding="utf-8")
            uri = f"/{path.relative_to(self.env.srcdir)}"
            pictures += nodes.image(uri=uri, alt=_alternative(source), classes=[shown])
        return [pictures]


def _alternative(source: str) -> str:
    """Return the text for a reader who does not see the picture: the source, which is a list of arrows."""
    return "Diagram. " + "; ".join(line.strip() for line in source.splitlines() if line.strip())


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("mermaid", Diagram)
    return {"parallel_read_safe": True}
