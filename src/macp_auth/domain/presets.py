"""Scopes for the usual roles of a sender, each with every field set.

The MACP runtime's default for an absent field is mostly permissive, so none is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

AMBIENT = ""
"""The mode of ambient messages: a Signal, or a Progress outside of a session."""
_NOTHING: Mapping[str, Any] = {
    "can_start_sessions": False,
    "can_manage_mode_registry": False,
    "is_observer": False,
    "allowed_modes": [],
    "max_open_sessions": 0,
}


class Preset(NamedTuple):  # not of msgspec, which `macp-auth --help` would wait for
    """The scopes of one role."""

    summary: str
    """What a token with them may do."""
    scopes: Mapping[str, Any]
    """What it grants; the modes are added if :attr:`has_modes`."""
    has_modes: bool
    """Whether the token sends messages, in modes that its minter chooses, and ambient ones."""

    def scopes_for(self, modes: Iterable[str]) -> dict[str, Any]:
        """Return the scopes of a token; a preset without modes ignores ``modes``."""
        allowed = [*dict.fromkeys([*modes, AMBIENT])] if self.has_modes else []
        return {**_NOTHING, **self.scopes, "allowed_modes": allowed}


PRESETS = {
    "initiator": Preset(
        "starts sessions in its modes, at most 4 open at once, and sends messages in them",
        {"can_start_sessions": True, "max_open_sessions": 4},
        has_modes=True,
    ),
    "participant": Preset("sends messages in its modes, and starts no session", {}, has_modes=True),
    "observer": Preset("reads every session, and sends nothing", {"is_observer": True}, has_modes=False),
    "registrar": Preset(
        "registers modes and policies, and sends nothing",
        {"can_manage_mode_registry": True},
        has_modes=False,
    ),
}
"""By name. An initiator's limit is that of the grants in docs/callers.md."""
