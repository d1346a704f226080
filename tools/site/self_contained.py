"""The site loads nothing from another host: a reader of the documentation is seen by no third party."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|link\s+rel="(?:stylesheet|preload|icon)")[^>]*\s(?:src|href)="(?:https?:)?//[^"]+"""
)
_LOADED_BY_STYLE = re.compile(r"""(?:url\(|@import )["']?(?:https?:)?//[^)"']+""")


def loaded_elsewhere(folder: Path) -> list[str]:
    """Return what the pages and styles in ``folder`` load from other hosts."""
    found = []
    for pattern, kind in ((_LOADED, "*.html"), (_LOADED_BY_STYLE, "*.css")):
        for path in sorted(folder.rglob(kind)):
            matches = pattern.findall(path.read_text(encoding="utf-8"))
            found += [f"{path.relative_to(folder)}: {match}" for match in matches]
    return found


def _check(app: Any, failed: Exception | None) -> None:
    if failed is None and (found := loaded_elsewhere(Path(app.outdir))):
        raise RuntimeError("loaded from another host:\n" + "\n".join(found))


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True}
