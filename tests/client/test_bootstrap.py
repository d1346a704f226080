"""The bootstrap file, as the Python SDK reads it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from macp_sdk.agent import from_bootstrap

from macp_auth_client import write_bootstrap

CONTEXT: dict[str, Any] = {
    "token": "a.b.c",
    "participant_id": "risk-agent",
    "session_id": "s-1",
    "mode": "macp.mode.decision.v1",
    "runtime_url": "localhost:1",
    "participants": ["risk-agent", "fraud-agent"],
    "initiator": {"session_start": {"intent": "try", "ttl_ms": 1000}},
}


def test_the_sdk_reads_all_of_it(tmp_path: Path) -> None:
    """Each member comes out where the SDK keeps it."""
    path = tmp_path / "bootstrap.json"
    write_bootstrap(path, **CONTEXT)
    participant = from_bootstrap(str(path))
    assert participant._auth is not None
    assert participant._auth.metadata() == [("authorization", "Bearer a.b.c")]
    assert participant._auth.expected_sender == participant.participant_id == "risk-agent"
    assert (participant.session_id, participant.mode) == ("s-1", "macp.mode.decision.v1")
    assert participant.session.participants == ["risk-agent", "fraud-agent"]
    assert participant._initiator_config is not None
    assert participant._initiator_config.intent == "try"
    participant._client.close()


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """Whatever the umask, and whatever the mode of the file that it replaces."""
    path = tmp_path / "bootstrap.json"
    path.touch(mode=0o666)
    before = os.umask(0)
    try:
        write_bootstrap(path, **CONTEXT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_replaced(tmp_path: Path) -> None:
    """What it leads to is not written."""
    other = tmp_path / "other"
    other.write_text("other")
    path = tmp_path / "bootstrap.json"
    path.symlink_to(other)
    write_bootstrap(path, **CONTEXT)
    assert not path.is_symlink()
    assert other.read_text() == "other"
    assert json.loads(path.read_text())["auth_token"] == "a.b.c"


@pytest.mark.parametrize(
    ("wrong", "error"), [({"initiator": object()}, TypeError), ({"ttl": float("inf")}, ValueError)]
)
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, wrong: dict[str, Any], error: type[Exception]
) -> None:
    """And no other file with a token."""
    path = tmp_path / "bootstrap.json"
    path.write_text("before")
    with pytest.raises(error):
        write_bootstrap(path, **{**CONTEXT, **wrong})
    assert path.read_text() == "before"
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_bootstrap(tmp_path / "folder", **CONTEXT)
    with pytest.raises(FileNotFoundError):
        write_bootstrap(tmp_path / "missing" / "bootstrap.json", **CONTEXT)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bootstrap.json", "folder"]


def test_a_named_member_is_not_replaced_by_a_further_one(tmp_path: Path) -> None:
    """The token of the SDK's own name least of all."""
    path = tmp_path / "bootstrap.json"
    write_bootstrap(path, **CONTEXT, auth_token="other")
    assert json.loads(path.read_text())["auth_token"] == "a.b.c"
