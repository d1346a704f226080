"""A plugin that does harm to its process: the service stays, and signs again when the plugin does."""

from __future__ import annotations

import os
import resource
import secrets
import select
import signal
import sys
import time
import urllib.error
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

import msgspec
import psutil
import pytest

from macp_auth.adapters.sandbox.process import COMMON_VARIABLES, selected
from tests.support.hostile_signer import Sight
from tests.support.signers import with_plugins
from tests.support.users import require_view_of_services
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import all_gone, family, workers_of
from tools.support.service import Service, clean_environment, wait_until

pytestmark = [
    pytest.mark.slow,  # a service for each fault of a plugin
    pytest.mark.skipif(
        sys.platform != "linux", reason="only Linux limits a plugin's process: run these tests on Linux"
    ),
]

MEMORY_MIB = 256
RECOVERY_SECONDS = 20
"""A process that hangs is replaced after 12 s; the rest is for a machine with much else to do."""
STOP_SECONDS = 10
ANSWER_SECONDS = 0.1
AGAIN = "circuit-open"
ENDED = {"process-ended", "deadline", AGAIN}  # a start takes longer than the deadline of a signature
MINTED = "minted"
SLOW = ["hold_the_gil", "hang_in_a_thread", "leak_descriptors"]
"""Only a new process signs again, after 10 s: they wait at the same time."""

FAULTS: dict[str, set[str]] = {
    "hold_the_gil": {"deadline", AGAIN},
    "hang_in_a_thread": {"deadline", AGAIN},
    "exit": ENDED,
    "crash": ENDED,
    "exit_and_not_start": {*ENDED, "misconfigured"},
    "close_descriptors": ENDED,
    "write_to_the_service": ENDED,
    "start_threads": {MINTED, "plugin-fault", AGAIN},
    "leak_descriptors": {"plugin-fault", AGAIN},
    "take_memory": {"plugin-fault", AGAIN},
    "raise_a_long_error": {"unavailable", AGAIN},
    "raise_another_long_error": {"plugin-fault", AGAIN},
    "write_into_arguments": {"wrong-signature", AGAIN},
    "ten_thousand_versions": {MINTED},
    "handle_signals": {MINTED},
    "print_some": {MINTED},
    "print_without_end": {MINTED},
    "change_directory": {MINTED},
    "fork": {MINTED},
}
"""Each fault, and what may become of a mint."""


class Hostile:
    """A service with the plugin."""

    def __init__(self, home: Path, start: Callable[..., Service]) -> None:
        self._home = home
        home.mkdir()
        plugins = with_plugins(home / "plugins", "hostile", {"hostile": "tests.support.hostile_signer"})
        self.environment = {
            **plugins,
            "HOME": str(home),
            "MACP_AUTH_SIGNER": "hostile",
            "MACP_AUTH_HOSTILE_SIGNING_ALG": "ES256",
            "MACP_AUTH_SIGNER_MEMORY_MIB": str(MEMORY_MIB),
            "MACP_AUTH_KEY_REFRESH_SECONDS": "1",
            "MACP_AUTH_AUDIT_LOG": "stdout",
        }
        self._start = start

    def start(self, env: dict[str, str] | None = None, *args: str) -> Service:
        return self._start({**self.environment, **(env or {})}, *args)

    def does(self, fault: str) -> None:
        """Let the plugin do this harm from now on."""
        (self._home / "next").write_text(fault)
        (self._home / "next").rename(self._home / "fault")

    def is_well(self) -> None:
        (self._home / "fault").unlink()

    def saw(self, place: str) -> Sight:
        return msgspec.json.decode((self._home / f"sight-{place}").read_bytes(), type=Sight)

    def processes(self) -> list[psutil.Process]:
        """Those of the plugin that run."""
        found = []
        for each in (self._home / "processes").iterdir():
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(int(each.name))
                if "hostile" in process.cmdline():
                    found.append(process)
        return found


@pytest.fixture
def hostile(tmp_path: Path, start_service: Callable[..., Service]) -> Hostile:
    return Hostile(tmp_path / "home", start_service)


def mints(service: Service) -> bool:
    """Whether a mint is a 200; else it is a 503."""
    try:
        return bool(service.mint()["token"])
    except urllib.error.HTTPError as error:
        with error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
        return False


def seconds_of(service: Service, path: str) -> float:
    began = time.monotonic()
    assert service.get(path)[0] == 200
    return time.monotonic() - began


def reasons(service: Service) -> list[str]:
    """What became of each mint; the audit log has nothing but its own lines."""
    return [line["reason"] or line["event"] for line in service.audit_lines]


def wait_for_recovery(service: Service) -> None:
    wait_until(lambda: mints(service), within=RECOVERY_SECONDS, what="it signs again")


def observe(service: Service, plugin: Hostile, fault: str) -> None:
    """Check the service while the plugin does harm."""
    wait_for_recovery(service)
    before = len(reasons(service))
    logged = len(service.log)
    plugin.does(fault)
    answers, keys = [], 0
    ends = time.monotonic() + 1
    while time.monotonic() < ends or keys < 60:
        mints(service)
        for _ in range(3):
            answers.append(seconds_of(service, "/healthz"))
            keys += len(service.jwks()["keys"])
    assert sorted(answers)[len(answers) * 9 // 10] < ANSWER_SECONDS
    assert keys == len(answers)
    became = reasons(service)[before:]
    assert set(became[1:]) <= FAULTS[fault]
    assert MINTED in FAULTS[fault] or became[-1] != MINTED
    if became[-1] != MINTED:
        assert "'hostile'" in service.log[logged:]


@pytest.mark.parametrize("faults", [SLOW, *([fault] for fault in FAULTS if fault not in SLOW)], ids=" ".join)
def test_the_service_stays_and_recovers(
    tmp_path: Path, start_service: Callable[..., Service], faults: list[str]
) -> None:
    """It answers during the fault, signs after it, ends during it, and leaves no process."""
    plugins = [Hostile(tmp_path / fault, start_service) for fault in faults]
    services = [plugin.start() for plugin in plugins]
    for plugin, service, fault in zip(plugins, services, faults, strict=True):
        observe(service, plugin, fault)
    for plugin in plugins:
        plugin.is_well()
    for plugin, service, fault in zip(plugins, services, faults, strict=True):
        wait_for_recovery(service)
        plugin.does(fault)
        mints(service)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(HANG_SECONDS) == 0
        assert time.monotonic() - began < STOP_SECONDS
        assert all_gone(plugin.processes())


@pytest.mark.parametrize(("fault", "workers"), [("hold_the_gil", 1), ("hold_the_gil", 2), ("fork", 1)])
def test_it_ends_with_its_worker(hostile: Hostile, fault: str, workers: int) -> None:
    """Also when SIGKILL ends the worker, the process can't see that, and it has a copy."""
    service = hostile.start({}, "--workers", str(workers))
    wait_until(lambda: len(hostile.processes()) == workers, within=HANG_SECONDS, what="each has a process")
    hostile.does(fault)
    mints(service)
    lost = psutil.Process(service.process.pid) if workers == 1 else workers_of(service)[0]
    processes = lost.children(recursive=True)
    assert processes
    lost.kill()
    wait_until(lambda: all_gone(processes), within=STOP_SECONDS, what="its processes end")


def test_it_sees_its_own_settings_and_nothing_else(hostile: Hostile) -> None:
    """No variable, descriptor or core dump of the service's; its settings come after its start."""
    require_view_of_services()
    secret = secrets.token_hex(16)
    foreign = {
        "VAULT_TOKEN": secret,
        "AWS_SECRET_ACCESS_KEY": secret,
        "MACP_AUTH_KEY_RETIRE_LAG_SECONDS": "4000",
    }
    own = {"MACP_AUTH_HOSTILE_PIN": secret, "HOSTILE_LIBRARY_CONFIGURATION": "a"}
    service = hostile.start({**foreign, **own})
    wait_for_recovery(service)
    common = set(selected(clean_environment(hostile.environment), COMMON_VARIABLES))
    common.add("LC_CTYPE")  # Python sets it
    assert set(hostile.saw("import").environment) <= common
    settings = {"MACP_AUTH_HOSTILE_SIGNING_ALG", *own}
    assert set(hostile.saw("prepare").environment) - common == settings
    sight = hostile.saw("open")
    assert set(sight.environment) - common == settings - {"MACP_AUTH_HOSTILE_PIN"}  # read, and forgotten
    [process] = hostile.processes()
    assert secret.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
    assert sight.dumpable == 0
    assert [each.rlimit(resource.RLIMIT_CORE) for each in family(service)] == [(0, 0)] * 2
    assert not set(sight.descriptors) & descriptors_of(service)


def descriptors_of(service: Service) -> set[tuple[int, int]]:
    """The device and inode of each descriptor of the service that is more than an interface to the kernel."""
    with select.epoll() as anonymous, Path(os.devnull).open() as null:
        ordinary = [os.fstat(each.fileno()) for each in (anonymous, null)]
    found = [each.stat() for each in Path(f"/proc/{service.process.pid}/fd").iterdir()]
    return {(each.st_dev, each.st_ino) for each in found} - {(each.st_dev, each.st_ino) for each in ordinary}
