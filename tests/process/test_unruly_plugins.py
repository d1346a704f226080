"""A plugin that prints, exits or hangs where it should not, with the service and with each command."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.signers import with_plugins
from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, clean_environment, free_port, wait_until

pytestmark = pytest.mark.slow  # a service for each fault of a plugin

COMMANDS = (["serve"], ["doctor"], ["plugins", "check", "unruly"])


@pytest.fixture
def unruly(tmp_path: Path) -> dict[str, str]:
    """An environment that selects the plugin."""
    plugins = with_plugins(tmp_path / "plugins", "unruly", {"unruly": "tests.support.unruly_signer"})
    return {**plugins, "MACP_AUTH_SIGNER": "unruly", "HOME": str(tmp_path)}


def call(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    if command == ["serve"]:
        command = ["serve", "--port", str(free_port())]
    return subprocess.run(
        [sys.executable, "-m", "macp_auth", *command],
        env=clean_environment(env),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("path", ["stdout", "/dev/stdout"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_standard_output_has_audit_lines_only(
    unruly: dict[str, str], start_service: Callable[..., Service], workers: str, path: str
) -> None:
    """All output of the plugin is in the log, where an operator looks."""
    service = start_service({**unruly, "MACP_AUTH_AUDIT_LOG": path}, "--workers", workers)
    for _ in range(4):
        service.mint()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(HANG_SECONDS) == 0
    events = [line["event"] for line in service.audit_lines]
    assert events == ["minted"] * 4
    printed = [line.get("line") for line in service.events if line["event"] == "signer output"]
    for place in ("import", "hook", "settings", "prepare", "key_versions", "sign"):
        assert f"print in {place}" in printed
        assert f"write in {place}" in printed
    assert "a child" in printed


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("place", ["import", "hook", "settings", "prepare"])
def test_a_plugin_that_exits_ends_nothing_in_silence(
    unruly: dict[str, str], tmp_path: Path, command: list[str], place: str
) -> None:
    """``sys.exit(0)`` is an error that names the plugin, and no success."""
    (tmp_path / "unruly").write_text(place)
    done = call(command, unruly)
    assert done.returncode in {1, 2}
    said = done.stdout + done.stderr
    assert "unruly" in said
    assert "SystemExit" in said
    assert "Traceback" not in done.stderr


def test_a_plugin_that_exits_in_the_doctor_is_no_good_sign(unruly: dict[str, str], tmp_path: Path) -> None:
    """What the plugin would have found is not known, so nothing is well."""
    (tmp_path / "unruly").write_text("diagnose")
    done = call(["doctor"], unruly)
    assert done.returncode == 1
    assert "'unruly' raised SystemExit in diagnose" in done.stdout


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", ["import", "prepare"])
def test_a_stop_during_the_start_is_no_fault(
    unruly: dict[str, str], tmp_path: Path, signum: signal.Signals, place: str
) -> None:
    """Neither is it taken for the plugin's own exit, nor does it wait for the plugin."""
    waiting = tmp_path / "waiting"
    (tmp_path / "unruly").write_text(f"{place} {waiting}")
    service = Service(tmp_path, unruly)
    try:
        wait_until(waiting.exists, within=HANG_SECONDS, what="the plugin was called")
        service.process.send_signal(signum)
        assert service.process.wait(HANG_SECONDS) == 0
        assert "raised" not in service.log
        assert "Traceback" not in service.log
    finally:
        service.__exit__()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_two_packages_with_one_name_are_refused(
    unruly: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    """Otherwise it is unknown which of them signs."""
    other = with_plugins(tmp_path / "other", "impostor", {"unruly": "tests.support.wordy_signer"})
    env = {**unruly, "PYTHONPATH": f"{other['PYTHONPATH']}:{unruly['PYTHONPATH']}"}
    done = call(command, env)
    assert done.returncode in {1, 2}
    said = done.stdout + done.stderr
    assert "several packages bring a signer plugin 'unruly': impostor 1.0, unruly 1.0" in said
    listed = call(["plugins", "list"], env).stdout
    assert "impostor 1.0" in listed
    assert "unruly 1.0" in listed
