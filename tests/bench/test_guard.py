"""``make guard``, which this runs for CI: the code as it is passes, and what costs more does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.bench import guard
from tools.support.programs import require_tool


def test_a_token_takes_no_more_instructions_than_it_may() -> None:
    """When this fails, each token does more than before: undo that, or raise the bound and say why."""
    require_tool("valgrind", "valgrind")
    assert guard.main() == 0


def test_an_access_log_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    """When this fails, the bound is too far above what the code takes by now: lower it."""
    require_tool("valgrind", "valgrind")
    assert guard.main("tests.bench.wasteful") == 1
    assert capsys.readouterr().err == "guard: a token takes more of our own code than it may\n"


def test_what_sets_no_marks_is_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """A count that was not made passes for none."""
    require_tool("valgrind", "valgrind")
    assert guard.main("this") == 2
    assert "has not seen the marks" in capsys.readouterr().err


def test_without_valgrind_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The guard says which package it lacks."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert guard.main() == 2
    assert capsys.readouterr().err == (
        "guard: valgrind is not installed; it is in Debian's package `valgrind`\n"
    )
