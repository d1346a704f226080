"""What was recorded of the real runtime is what it does: our pages and ``macp-auth verify`` rest on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.macp_runtime.behaviour import QUESTIONS, RECORDED

BEHAVIOUR = json.loads(RECORDED.read_bytes())["answers"]


def test_all_questions_are_recorded() -> None:
    """And no others."""
    assert BEHAVIOUR.keys() == QUESTIONS.keys()


@pytest.mark.parametrize("name", QUESTIONS)
def test_behaviour(name: str, tmp_path: Path) -> None:
    """The runtime answers as on the day of the record."""
    assert QUESTIONS[name](tmp_path) == BEHAVIOUR[name]
