"""JSON objects with unique names (RFC 8259, section 4): a repeated one means two things to two readers."""

from __future__ import annotations

from typing import Any


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members; an ``object_pairs_hook`` for :mod:`json`.

    Raises:
        ValueError: a name stands there twice.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("duplicate member")
    return members
