"""Errors of commands: one line, for every command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.support.bounded import HANG_SECONDS
from tools.support.service import clean_environment

MACP_AUTH = [sys.executable, "-m", "macp_auth"]


def run(*args: str, stdout: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MACP_AUTH, *args],
        env=clean_environment(), stdout=stdout, stderr=subprocess.PIPE, text=True,
        timeout=HANG_SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message", "command"),
    [
        (["nonsense"], "No such command 'nonsense'.", "macp-auth"),
        (["keys", "list", "--jsn"], "No such option '--jsn'. Did you mean '--json'?", "macp-auth keys list"),
        (["keys", "revoke", "k.json"], "Missing argument 'KID'.", "macp-auth keys revoke"),
        (
            ["keys", "generate", "--alg", "HS256"],
            "Invalid value for '--alg': 'HS256' is not one of 'RS256', 'ES256'.",
            "macp-auth keys generate",
        ),
    ],
)
def test_a_command_that_can_t_be_understood(args: list[str], message: str, command: str) -> None:
    """One line that can be searched for, with where help is; exit status 2."""
    refused = run(*args)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == f"macp-auth: {message} See {command} --help\n"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["audit", "report", "-x.log"], "'-x.log' does not exist"),
        (["plugins", "check", "-x"], "unknown signer '-x'"),
        (["keys", "timeline", "-x.json"], "-x.json does not exist"),
        (["verify", "-eyJ", "--jwks", "http://127.0.0.1:1/"], "can't fetch the keys"),
        (["keys", "list", "-x", "--kid"], "No such option '--kid'."),
    ],
)
def test_an_argument_that_begins_with_a_hyphen(args: list[str], text: str) -> None:
    """It is a value, in every command that takes one; what begins with two is an option."""
    refused = run(*args)
    assert refused.returncode == 2
    assert text in refused.stderr


def test_a_group_alone_shows_its_commands() -> None:
    """And is not taken for a mistake in a line."""
    shown = run("keys")
    assert shown.returncode == 2
    assert "generate" in shown.stdout
    assert shown.stderr == ""


@pytest.mark.parametrize(
    "args", [["keys", "generate", "--alg", "ES256"], ["audit", "report", "/dev/null"], ["--help"]]
)
def test_an_output_that_is_full(args: list[str]) -> None:
    """One line, exit status 1: what was to be printed is lost."""
    with Path("/dev/full").open("wb") as full:
        failed = run(*args, stdout=full.fileno())
    assert failed.returncode == 1
    assert failed.stderr == "macp-auth: cannot write the output: No space left on device\n"


def test_a_reader_that_went_away() -> None:
    """Nothing is said of it: the reader has what it wanted."""
    with subprocess.Popen(
        [*MACP_AUTH, "keys", "generate", "--alg", "ES256"],
        env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
