"""The start of a service with a plugin, or a program: one process prepares, and another one will sign."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from macp_auth.entrypoints.signers import process
from tests.support.programs import tiny
from tests.support.signers import with_plugins
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import all_gone
from tools.support.service import Service, clean_environment, wait_until

pytestmark = pytest.mark.process

STOPPED = ["sh", "-c", 'kill -STOP $$; exec "$@"', "sh"]
"""Before the command: it waits until the test continues it."""


KIT_COMMAND = ["-m", "macp_auth", "plugins", "check", "tiny", "--only", "opens-and-closes", "--seconds", "1"]
KIT_IN_PYTHON = """
import os
from macp_auth.testing import CHECKS, ProgramSubject, run_check
print(run_check(CHECKS["opens-and-closes"], ProgramSubject(os.environ), 1).text)
"""


def stopped_processes(service: Service) -> list[psutil.Process]:
    """Both processes of the signer, once they have started."""
    parent = psutil.Process(service.process.pid)

    def all_stopped() -> bool:
        states = [child.status() for child in parent.children()]
        return states == [psutil.STATUS_STOPPED] * 2

    wait_until(all_stopped, within=HANG_SECONDS, what="two processes start")
    return sorted(parent.children(), key=lambda child: child.pid)


def start(directory: Path) -> Service:
    environ = tiny("none")
    command = [*STOPPED, *shlex.split(environ["MACP_AUTH_SIGNER_COMMAND"])]
    return Service(directory, {**environ, "MACP_AUTH_SIGNER_COMMAND": shlex.join(command)})


def test_the_only_workers_process_starts_while_another_one_prepares(tmp_path: Path) -> None:
    """So they load at the same time; and it signs, with nothing started in its place."""
    service = start(tmp_path)
    try:
        prepares, signs = stopped_processes(service)
        prepares.resume()
        signs.resume()
        with service:
            wait_until(lambda: "signing key" in service.log, within=HANG_SECONDS, what="it has keys")
            assert service.mint()["token"]
            assert psutil.Process(service.process.pid).children() == [signs]
    finally:
        service.__exit__()


def test_it_ends_with_one_that_can_not_prepare(tmp_path: Path) -> None:
    """Even one that does not see that the service is gone."""
    service = start(tmp_path)
    try:
        prepares, signs = stopped_processes(service)
        prepares.send_signal(signal.SIGKILL)
        assert service.process.wait(HANG_SECONDS) == 2
        assert all_gone([signs])
    finally:
        service.__exit__()


def test_a_stop_during_the_start_ends_a_program_that_hangs(tmp_path: Path) -> None:
    """It does not see that the service is gone."""
    service = Service(tmp_path, tiny("hangs-in-prepare"))
    try:
        wait_until(lambda: "prepares" in service.log, within=HANG_SECONDS, what="it prepares")
        processes = psutil.Process(service.process.pid).children()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(HANG_SECONDS) == 0
        wait_until(lambda: all_gone(processes), within=HANG_SECONDS, what="it ends")
    finally:
        service.__exit__()


@pytest.mark.parametrize("command", [KIT_COMMAND, ["-c", KIT_IN_PYTHON]], ids=["command", "Python"])
def test_the_kit_leaves_no_program_that_hangs(tmp_path: Path, command: list[str]) -> None:
    """Neither does it wait for one."""
    environ = tiny("hangs-in-prepare")
    environ["MACP_AUTH_SIGNER_COMMAND"] += f" {tmp_path}"
    env = clean_environment(environ)
    done = subprocess.run(
        [sys.executable, *command],
        env=env,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS / 2,
        check=False,
    )
    assert "prepare() hangs" in done.stdout

    def none_is_left() -> bool:
        return not any(
            str(tmp_path) in (each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])
        )

    wait_until(none_is_left, within=HANG_SECONDS, what="the program ends")


def test_one_that_starts_after_the_end_of_the_service_does_not_load(tmp_path: Path) -> None:
    """Or a plugin whose import does not end would keep it running."""
    environ = with_plugins(tmp_path / "plugins", "endless", {"endless": "endless"})
    (tmp_path / "plugins" / "endless.py").write_text("import threading\nthreading.Event().wait()\n")
    ours, theirs = socket.socketpair()
    ours.close()
    command = [sys.executable, "-P", "-m", process.__name__, "endless"]
    env = clean_environment(environ)
    with theirs:
        subprocess.run(command, stdin=theirs.fileno(), env=env, timeout=HANG_SECONDS, check=True)
