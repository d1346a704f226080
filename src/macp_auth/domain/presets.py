"""Scopes for the usual roles of a sender, each with every field set.

The MACP runtime's default for an absent field is mostly permissive, so none is absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from macp_auth.domain.grants import Ceiling

AMBIENT = ""
"""The mode of ambient messages: a Signal, or a Progress outside of a session."""


class Preset(Struct, frozen=True):
    """The scopes of one role."""

    summary: str
    """What a token with them may do."""
    scopes: Ceiling
    """Every field; the modes are added if :attr:`has_modes`."""
    has_modes: bool = False
    """Whether the token sends messages, in modes that its minter chooses, and ambient ones."""

    def scopes_for(self, modes: Iterable[str]) -> dict[str, Any]:
        """Return the scopes of a token; a preset without modes ignores ``modes``."""
        allowed = [*dict.fromkeys([*modes, AMBIENT])] if self.has_modes else []
        return {**msgspec.structs.asdict(self.scopes), "allowed_modes": allowed}


PRESETS = {
    "initiator": Preset(
        "starts sessions in its modes, at most 4 open at once, and sends messages in them",
        Ceiling(can_start_sessions=True, max_open_sessions=4),
        has_modes=True,
    ),
    "participant": Preset("sends messages in its modes, and starts no session", Ceiling(), has_modes=True),
    "observer": Preset("reads every session, and sends nothing", Ceiling(is_observer=True)),
    "registrar": Preset(
        "registers modes and policies, and sends nothing", Ceiling(can_manage_mode_registry=True)
    ),
}
"""By name. An initiator's limit is that of the grants in docs/callers.md."""
