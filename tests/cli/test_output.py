"""The output of commands on a terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import macp_auth
from macp_auth.entrypoints.cli.output import echo
from tools.support.service import clean_environment

CLI = Path(macp_auth.__file__).parent / "entrypoints" / "cli"


def test_nothing_but_line_ends_moves_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Controls, C1, bidi and line separators, on both outputs; a mark stays as it is."""
    echo("a\x1b[2J\x9b1A\nb\u2028\u202e", mark="é ")
    echo("\r", err=True)
    shown = capsys.readouterr()
    assert shown.out == "é a\\u001b[2J\\u009b1A\nb\\u2028\\u202e\n"
    assert shown.err == "\\u000d\n"


def test_a_locale_without_a_character_shows_its_number() -> None:
    """A picture for the terminal has characters that Latin-1 has not."""
    run = subprocess.run(
        [sys.executable, "-m", "macp_auth", "keys", "timeline"],
        env=clean_environment({"PYTHONIOENCODING": "latin-1"}), capture_output=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert b"\\u2588 active: signs" in run.stdout


@pytest.mark.parametrize("module", [path for path in CLI.glob("*.py") if path.name != "output.py"], ids=str)
def test_every_command_prints_that_way(module: Path) -> None:
    """None prints by itself: its text may come from a token, a log, a plugin or a server."""
    assert not re.search(r"\bclick\.s?echo\(|\bprint\(", module.read_text())
