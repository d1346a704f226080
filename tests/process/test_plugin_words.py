"""What a plugin says of its failure is shown in part, and never as it is."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.signers import with_plugins
from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, clean_environment, wait_until

LONGEST_LINE = 2000


@pytest.fixture
def wordy(tmp_path: Path) -> dict[str, str]:
    """An environment that selects the plugin."""
    plugins = with_plugins(tmp_path / "plugins", "wordy", {"wordy": "tests.support.wordy_signer"})
    return {**plugins, "MACP_AUTH_SIGNER": "wordy", "MACP_AUTH_WORDY_PIN": secrets.token_hex(8)}


def test_a_service_logs_a_part_of_it(wordy: dict[str, str], start_service: Callable[..., Service]) -> None:
    """In one printable line, without the plugin's PIN."""
    service = start_service(wordy)
    failed = "cannot read keys"
    wait_until(lambda: service.log.count(failed) > 1, within=HANG_SECONDS, what="two failures")
    service.__exit__()
    assert max(map(len, service.log.splitlines())) < LONGEST_LINE
    details = [str(event.get("detail", "")) for event in service.events]
    assert any("the PIN [redacted] is refused" in detail for detail in details)
    assert all(detail.isprintable() for detail in details)
    assert wordy["MACP_AUTH_WORDY_PIN"] not in service.log


@pytest.mark.parametrize("command", [["doctor"], ["plugins", "check", "wordy"]], ids=" ".join)
def test_a_command_prints_a_part_of_it(wordy: dict[str, str], command: list[str]) -> None:
    """The same."""
    run = subprocess.run(
        [sys.executable, "-m", "macp_auth", *command],
        env=clean_environment(wordy),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = run.stdout + run.stderr
    assert "[redacted]" in said
    assert "\x1b[31m" not in said
    assert max(map(len, said.splitlines())) < LONGEST_LINE
    assert wordy["MACP_AUTH_WORDY_PIN"] not in said
