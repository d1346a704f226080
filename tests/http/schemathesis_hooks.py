"""Hooks of the schemathesis command: what the OpenAPI document says in words only."""

from __future__ import annotations

from typing import Any

import schemathesis

from macp_auth.domain.visible import is_visible


@schemathesis.hook
def map_body(_context: object, body: Any) -> Any:
    """Make a generated sender visible. No pattern of JSON Schema says which characters are assigned."""
    if isinstance(body, dict) and isinstance(sender := body.get("sender"), str) and not _is_plain(sender):
        body["sender"] = "".join(each if is_visible(each) and each != " " else "x" for each in sender)
    return body


def _is_plain(sender: str) -> bool:
    return is_visible(sender) and sender == sender.strip()
