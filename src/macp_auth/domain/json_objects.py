"""JSON objects with unique names (RFC 8259, section 4): readers disagree on a repeated one."""

from __future__ import annotations

from typing import Any


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members; an ``object_pairs_hook`` for :mod:`json`.

    Raises:
        ValueError: a name is repeated.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("duplicate member")
    return members
