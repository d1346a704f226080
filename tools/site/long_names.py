"""Long names, such as those of variables, may break after an underscore or a slash: columns are narrow."""

from __future__ import annotations

import re
from typing import Any

_NAME = re.compile(r'(?<=<span class="pre">)[^<]+')
_BREAK = re.compile(r"(?<=\w)([_/])(?=\w)")


def _allow_breaks(_app: Any, _name: str, _template: str, context: dict[str, Any], _page: Any) -> None:
    if "body" in context:
        context["body"] = _NAME.sub(lambda name: _BREAK.sub(r"\1<wbr>", name[0]), context["body"])


def setup(app: Any) -> dict[str, bool]:
    app.connect("html-page-context", _allow_breaks)
    return {"parallel_read_safe": True}
