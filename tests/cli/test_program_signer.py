"""The commands with a signer that is a program."""

from __future__ import annotations

import json
import subprocess
import sys

from click.testing import CliRunner, Result

from macp_auth.entrypoints.cli.root import root
from tests.support.programs import tiny
from tools.support.bounded import HANG_SECONDS
from tools.support.service import clean_environment


def run(fault: str, *args: str) -> Result:
    """In this process: the program is one of its own."""
    return CliRunner().invoke(root, args, env=tiny(fault))


def test_the_list_has_the_program() -> None:
    """It is the selected one, and has no package."""
    done = run("none", "plugins", "list")
    assert done.exit_code == 0
    assert "* tiny           MACP_AUTH_SIGNER_COMMAND\n" in done.stdout
    (row,) = [row for row in json.loads(run("none", "plugins", "list", "--json").stdout) if row["selected"]]
    assert row == {"name": "tiny", "version": None, "distribution": None, "selected": True}


def test_the_kit_checks_the_program() -> None:
    """By its name, as a plugin."""
    done = run("none", "plugins", "check", "tiny", "--only", "raw-form", "--only", "quiet-repr")
    assert done.exit_code == 0
    assert "1 passed, 0 failed, 1 skipped" in done.stdout
    assert "a program has no repr" in done.stdout
    done = run("der", "plugins", "check", "tiny", "--only", "raw-form")
    assert done.exit_code == 1
    assert "it is DER" in done.stdout


def test_the_kit_sees_a_secret_that_the_program_prints() -> None:
    """What a program prints is in the log, also of a command, and so not in the report."""
    done = run(
        "prints-secret", "plugins", "check", "tiny", "--json", *("--only", "raw-form", "--only", "quiet-logs")
    )
    assert done.exit_code == 1
    printed, secret = json.loads(done.stdout)
    assert printed["outcome"] == "passed"
    assert "what is logged or printed shows a secret" in secret["text"]


def test_the_kit_names_a_program_that_does_not_start() -> None:
    """No check runs."""
    done = run("exits", "plugins", "check", "tiny")
    assert "it ended (exit status 3)" in str(done.exception)


def doctor(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it sets up the log."""
    command = [sys.executable, "-m", "macp_auth", "doctor"]
    env = clean_environment(environ)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)


def test_the_doctor_logs_what_the_program_printed() -> None:
    """It may say why it ended; the report stays clean."""
    done = doctor(tiny("exits"))
    assert "it ended (exit status 3)" in done.stdout
    assert "no licence" in done.stderr
    assert "no licence" not in done.stdout


def test_the_doctor_has_the_findings_of_the_program() -> None:
    """They come as notifications."""
    done = doctor(tiny("none"))
    assert "WARN  tiny               a finding" in done.stdout
    assert "a remedy" in done.stdout


def test_the_secret_of_a_program_is_redacted() -> None:
    """From its errors, and from what it prints."""
    environ = tiny("secret-in-prepare")
    done = doctor(environ)
    assert "bad token [redacted]" in done.stdout
    assert "the token is [redacted]" in done.stderr
    assert environ["MACP_AUTH_TINY_TOKEN"] not in done.stdout + done.stderr
