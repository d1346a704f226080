"""The audit log of a running service can be verified, and each change to it is found."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from macp_auth.adapters.audit.chain import HEAD_EVENT
from macp_auth.adapters.audit.writer import RECOVERED, TROUBLE
from macp_auth.entrypoints.cli.root import root
from tests.vault.load import Load
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import workers_of
from tools.support.service import Service, wait_until

pytestmark = pytest.mark.slow  # services of their own

ES256 = {"MACP_AUTH_SIGNING_ALG": "ES256"}
CONNECTIONS = 50

Start = Callable[..., Service]


def verify(*files: Path, log: Path | None = None) -> tuple[int, Any]:
    """The exit status of the command, and its answer."""
    logs = [] if log is None else ["--log", str(log)]
    done = CliRunner().invoke(root, ["audit", "verify", "--json", *map(str, files), *logs])
    return done.exit_code, json.loads(done.stdout)


def kinds(*files: Path, log: Path | None = None) -> set[str]:
    status, answer = verify(*files, log=log)
    found = {finding["kind"] for finding in answer["findings"]}
    assert status == (1 if found else 0)
    return found


def lines_in(*paths: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """The files of two workers, moved and copied away during the load, and the service log."""
    directory = tmp_path_factory.mktemp("rotated")
    path = directory / "audit.log"
    moved, copied = directory / "audit.log.2", directory / "audit.log.1"
    with Service(directory, {**ES256, "MACP_AUTH_AUDIT_LOG": str(path)}, "--workers", "2") as service:
        for _ in range(CONNECTIONS):  # until each worker got one
            service.mint()
            time.sleep(0.02)
        with Load(service, clients=6) as load:
            load.wait_for(200)
            path.rename(moved)
            wait_until(path.exists, within=HANG_SECONDS, what="there is a new file")
            load.wait_for(200)
        wait_until(
            lambda: lines_in(moved, path) == CONNECTIONS + len(load.attempts),
            within=HANG_SECONDS,
            what="all is written",
        )
        shutil.copy(path, copied)  # as logrotate's copytruncate; under load, it loses lines
        os.truncate(path, 0)
        with Load(service, clients=6) as load:
            load.wait_for(200)
    return [path, moved, copied], service.log_path


def test_the_files_of_two_workers_are_whole(rotated: tuple[list[Path], Path]) -> None:
    """Moved and copied away, in any order, against the heads that were logged at the end."""
    files, log = rotated
    status, answer = verify(*files, log=log)
    assert (status, answer["findings"], answer["notes"]) == (0, [], [])
    assert kinds(*reversed(files), log=log) == set()
    writers = answer["writers"]
    assert len(writers) == 2
    assert all(writer["lines"] == writer["last"] == writer["head"] for writer in writers)


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (lambda lines: lines[:50] + lines[51:], {"missing"}),
        (lambda lines: lines[1:], {"missing"}),
        (lambda lines: [*lines[:50], lines[50].replace(b"//load", b"//loaf"), *lines[51:]], {"changed"}),
        (lambda lines: [*lines[:50], lines[50][:40] + b"\n", *lines[51:]], {"missing"}),
        (lambda lines: lines[::-1], {"out-of-order"}),
        (lambda lines: [*lines, lines[7]], {"duplicate"}),
        (lambda lines: lines[:0], {"missing", "no-lines"}),
    ],
)
def test_each_change_is_found(
    rotated: tuple[list[Path], Path],
    tamper: Callable[[list[bytes]], list[bytes]],
    expected: set[str],
    tmp_path: Path,
) -> None:
    """In the middle one of the files."""
    (current, moved, copied), log = rotated
    changed = tmp_path / "changed.log"
    changed.write_bytes(b"".join(tamper(copied.read_bytes().splitlines(keepends=True))))
    assert kinds(current, moved, changed, log=log) >= expected


def test_a_file_that_is_cut_off_is_found_by_the_heads_only(
    rotated: tuple[list[Path], Path], tmp_path: Path
) -> None:
    """Nothing in the file itself says that more was written."""
    (current, moved, copied), log = rotated
    cut = tmp_path / "cut.log"
    cut.write_bytes(b"".join(current.read_bytes().splitlines(keepends=True)[:-5]))
    assert kinds(cut, moved, copied) == set()
    assert kinds(cut, moved, copied, log=log) == {"truncated"}
    assert kinds(moved, copied, log=log) >= {"truncated"}


def test_a_killed_worker_leaves_a_whole_chain(start_service: Start, tmp_path: Path) -> None:
    """The next one is another writer; the killed one has no head in the log."""
    path = tmp_path / "audit.log"
    service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": str(path)}, "--workers", "2")
    wait_until(lambda: len(workers_of(service)) == 2, within=HANG_SECONDS, what="two workers")
    for _ in range(20):
        service.mint()
    wait_until(lambda: lines_in(path) == 20, within=HANG_SECONDS, what="all is written")
    before = workers_of(service)
    for worker in before:
        worker.send_signal(signal.SIGKILL)
    wait_until(
        lambda: len(set(workers_of(service)) - set(before)) == 2, within=HANG_SECONDS, what="two others"
    )
    with Load(service, clients=4) as load:
        load.wait_for(50)
    service.__exit__()
    status, answer = verify(path, log=service.log_path)
    assert status == 0
    assert sum(writer["head"] is None for writer in answer["writers"]) in (1, 2)


def test_half_a_line_of_a_full_disk_is_a_note(start_service: Start, tmp_path: Path) -> None:
    """The whole line follows, with the same number."""
    path = tmp_path / "audit.log"
    service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": str(path)})
    for _ in range(30):
        service.mint()
    wait_until(lambda: lines_in(path) == 30, within=HANG_SECONDS, what="all is written")
    process = psutil.Process(service.process.pid)
    size = path.stat().st_size
    process.rlimit(resource.RLIMIT_FSIZE, (size + 150, resource.RLIM_INFINITY))
    service.mint()
    wait_until(
        lambda: any(event["event"] == TROUBLE for event in service.events),
        within=HANG_SECONDS,
        what="it is full",
    )
    process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_until(
        lambda: any(event["event"] == RECOVERED for event in service.events),
        within=HANG_SECONDS,
        what="it is over",
    )
    service.mint()
    service.__exit__()
    status, answer = verify(path, log=service.log_path)
    assert (status, answer["findings"]) == (0, [])
    assert len(answer["notes"]) == 1
    assert answer["writers"][0]["last"] == 32


def test_one_stream_of_both_logs_can_be_verified(start_service: Start, tmp_path: Path) -> None:
    """As kubectl logs mixes them."""
    service = start_service(ES256)
    for _ in range(5):
        service.mint()
    service.__exit__()
    [head] = [event for event in service.events if event["event"] == HEAD_EVENT]
    assert (head["seq"], head["level"]) == (5, "info")
    mixed = tmp_path / "mixed.log"
    mixed.write_bytes(service.log_path.read_bytes() + service.audit_path.read_bytes())
    assert kinds(mixed, log=mixed) == set()
