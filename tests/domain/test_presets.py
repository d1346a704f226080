"""The scopes of the usual roles."""

from __future__ import annotations

from typing import Any

import pytest

from macp_auth.domain.presets import PRESETS
from macp_auth.domain.scopes import KNOWN_SCOPES, check_scopes

MODE = "macp.mode.decision.v1"
NOTHING = {
    "can_start_sessions": False,
    "can_manage_mode_registry": False,
    "is_observer": False,
    "allowed_modes": [],
    "max_open_sessions": 0,
}


@pytest.mark.parametrize(
    ("name", "granted"),
    [
        ("initiator", {"can_start_sessions": True, "allowed_modes": [MODE, ""], "max_open_sessions": 4}),
        ("participant", {"allowed_modes": [MODE, ""]}),
        ("observer", {"is_observer": True}),
        ("registrar", {"can_manage_mode_registry": True}),
    ],
)
def test_what_a_preset_grants(name: str, granted: dict[str, Any]) -> None:
    """It grants only that, and an absent field would grant more."""
    assert PRESETS[name].scopes_for([MODE]) == {**NOTHING, **granted}


def test_each_preset_sets_every_scope() -> None:
    """In a form that the service mints unchanged."""
    assert set(PRESETS) == {"initiator", "participant", "observer", "registrar"}
    for preset in PRESETS.values():
        scopes = preset.scopes_for([MODE])
        assert set(scopes) == set(KNOWN_SCOPES)
        assert check_scopes(scopes) == scopes


def test_modes_are_not_repeated() -> None:
    assert PRESETS["participant"].scopes_for(["b", "a", "b", ""])["allowed_modes"] == ["b", "a", ""]
