"""A running service and its audit log: nothing is missing from it, and nothing of it holds up a mint."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from macp_auth.adapters.audit.writer import DROPPED, RECOVERED, TROUBLE
from tests.audit.pipes import read_lines
from tests.vault.load import Load
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import workers_of
from tools.support.service import Service, clean_environment, free_port, wait_until
from tools.support.wire import exchange, request_bytes

pytestmark = pytest.mark.slow  # services of their own

SOON = 30  # seconds: a bound for a hang; lines are written within some hundredths
ES256 = {"MACP_AUTH_SIGNING_ALG": "ES256"}

Start = Callable[..., Service]


def fingerprint(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def lines(*paths: Path) -> list[dict[str, Any]]:
    """Every line of the files; each must be whole, or empty."""
    found = []
    for path in paths:
        text = path.read_text()
        assert not text or text.endswith("\n")
        found += [json.loads(line) for line in text.splitlines() if line]
    return found


def tokens_in(*paths: Path) -> list[str]:
    return [line["token_sha256"] for line in lines(*paths) if line["event"] == "minted"]


def wait_for_tokens(expected: list[str], *paths: Path) -> None:
    """Wait until the files tell of just these tokens, each once."""

    def written() -> bool:
        try:
            return len(tokens_in(*paths)) >= len(expected)
        except (ValueError, AssertionError, FileNotFoundError):
            return False  # half of it is written

    wait_until(written, within=SOON, what=f"{len(expected)} lines")
    assert sorted(tokens_in(*paths)) == sorted(map(fingerprint, expected))


def mint(service: Service, times: int = 1) -> list[str]:
    return [service.mint()["token"] for _ in range(times)]


def events(service: Service, name: str) -> list[dict[str, Any]]:
    return [event for event in service.events if event["event"] == name]


def test_standard_output_has_a_line_for_each_answer(start_service: Start) -> None:
    """By default, and nothing else is there; the log is apart, on standard error."""
    service = start_service(ES256)
    body = b'{"sender":"agent://risk","scopes":{"can_start_sessions":false},"ttl_seconds":60}'
    headers = [("Host", "x"), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    answers = [
        exchange(service.port, request_bytes("POST", "/tokens", [*headers, ("X-Request-Id", "good")], body)),
        exchange(
            service.port, request_bytes("POST", "/tokens", [("Host", "x"), ("Content-Length", "1")], b"x")
        ),
        exchange(service.port, request_bytes("POST", "/tokens", [("Host", "x")])),
    ]
    assert [answer.status for answer in answers] == [200, 415, 400]
    wait_until(lambda: len(service.audit_lines) == 3, within=SOON, what="three lines")
    good, no_type, no_sender = service.audit_lines
    token = answers[0].json["token"]
    assert good["token_sha256"] == fingerprint(token)
    assert (good["request_id"], good["caller"], good["kid"]) == ("good", "127.0.0.1", "dev-key-1")
    assert (good["sender"], good["ttl"]) == ("agent://risk", 60)
    assert good["scopes"] == {"can_start_sessions": False}
    assert abs(good["exp"] - 60 - time.time()) < 30
    assert (no_type["status"], no_type["reason"]) == (415, "unsupported-media-type")
    assert no_type["request_id"] == answers[1].headers["x-request-id"]
    assert (no_sender["status"], no_sender["reason"]) == (400, "invalid-sender")
    written = service.audit_path.read_text() + service.log
    assert not any(part in written for part in token.split(".")[1:])


def test_off_is_off(start_service: Start) -> None:
    """Not a byte."""
    service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": "off"})
    mint(service, 3)
    service.__exit__()
    assert service.audit_path.read_bytes() == b""


def test_the_file_is_the_service_s_own_and_complete_when_it_has_ended(
    start_service: Start, tmp_path: Path
) -> None:
    """Others may not read a new file; an old one keeps its lines and its mode; SIGTERM loses nothing."""
    new, old = tmp_path / "new.log", tmp_path / "old.log"
    old.write_text('{"event":"before"}\n')
    old.chmod(0o640)
    for path, mode in ((new, 0o600), (old, 0o640)):
        service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": str(path)})
        tokens = mint(service, 20)
        service.__exit__()
        assert tokens_in(path) == [fingerprint(token) for token in tokens]
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert service.audit_path.read_bytes() == b""
    assert lines(old)[0] == {"event": "before"}


@pytest.mark.process
@pytest.mark.parametrize("destination", ["{tmp}", "{tmp}/missing/audit.log", "stdout "])
def test_a_destination_that_can_t_work_ends_the_start(destination: str, tmp_path: Path) -> None:
    """With the variable's name, and without its value."""
    value = destination.format(tmp=tmp_path)
    ended = subprocess.run(
        [sys.executable, "-m", "macp_auth", "serve", "--port", str(free_port())],
        env=clean_environment({"MACP_AUTH_AUDIT_LOG": value}),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert ended.returncode == 2
    assert "MACP_AUTH_AUDIT_LOG" in ended.stderr
    assert str(tmp_path) not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_moved_file_is_left_for_a_new_one(start_service: Start, tmp_path: Path) -> None:
    """As logrotate moves it, under load, twice, with two workers: each token is in one of the files, once."""
    path = tmp_path / "audit.log"
    service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": str(path)}, "--workers", "2")
    files = [tmp_path / "audit.log.2", tmp_path / "audit.log.1", path]
    with Load(service, clients=4) as load:
        for moved in files[:2]:
            load.wait_for(200)
            path.rename(moved)
            wait_until(path.exists, within=SOON, what="there is a new file")
        load.wait_for(200)
    assert load.failed == []
    wait_for_tokens([attempt.token for attempt in load.attempts], *files)
    assert all(tokens_in(file) for file in files)
    time.sleep(1.5)  # with nothing to write, nothing is checked
    path.unlink()
    more = mint(service, 8)
    wait_for_tokens(more, path)


def test_workers_do_not_write_into_each_other_s_lines(start_service: Start, tmp_path: Path) -> None:
    """Three workers, long lines and short: each line is whole, and there is one for each answer."""
    path = tmp_path / "audit.log"
    service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": str(path)}, "--workers", "3")
    wait_until(lambda: len(workers_of(service)) == 3, within=SOON, what="three workers")
    refusal = request_bytes("POST", "/tokens", [("Host", "x"), ("Connection", "close")])
    long_name = mint_with_long_scopes(service)
    with Load(service, clients=6) as load:
        for _ in range(100):
            assert exchange(service.port, refusal).status == 400
            mint_with_long_scopes(service)
    assert load.failed == []
    wait_until(
        lambda: path.read_bytes().count(b"\n") == len(load.attempts) + 201,
        within=SOON,
        what="a line for each answer",
    )
    assert {line["event"] for line in lines(path)} == {"minted", "refused"}
    short = [line["token_sha256"] for line in lines(path) if line["sender"] == "agent://load"]
    assert sorted(short) == sorted(fingerprint(attempt.token) for attempt in load.attempts)
    assert sum(line["sender"] == long_name for line in lines(path)) == 101


def mint_with_long_scopes(service: Service) -> str:
    sender: str = service.mint(sender="agent://long", scopes={"allowed_modes": ["m" * 3000]})["sender"]
    return sender


def test_a_full_disk_fails_no_mint_and_is_logged_once(start_service: Start) -> None:
    """/dev/full takes nothing, for good: the lines wait, and at the end they are counted."""
    service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": "/dev/full"})
    mint(service, 20)
    wait_until(lambda: events(service, TROUBLE), within=SOON, what="the log event")
    time.sleep(2.5)  # some tries more
    mint(service, 20)
    assert events(service, TROUBLE)[0]["reason"] == "No space left on device"
    assert len(events(service, TROUBLE)) == 1
    service.__exit__()
    assert service.process.returncode == 0
    [dropped] = events(service, DROPPED)
    assert dropped["lines"] == 40


def test_a_disk_that_was_full_gets_the_lines_that_waited(start_service: Start, tmp_path: Path) -> None:
    """A write that the disk takes half of leaves half a line, and every token is in a whole one."""
    path = tmp_path / "audit.log"
    service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": str(path)})
    tokens = mint(service, 30)
    wait_for_tokens(tokens, path)
    process = psutil.Process(service.process.pid)
    size = path.stat().st_size
    assert service.log_path.stat().st_size < size - 1000  # it may grow on
    process.rlimit(resource.RLIMIT_FSIZE, (size + 150, resource.RLIM_INFINITY))
    tokens += mint(service, 30)
    wait_until(lambda: events(service, TROUBLE), within=SOON, what="the log event")
    assert path.stat().st_size == size + 150
    process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_until(lambda: events(service, RECOVERED), within=SOON, what="it is over")
    broken = [line for line in path.read_bytes().splitlines() if line and not is_json(line)]
    assert len(broken) == 1
    whole = [json.loads(line) for line in path.read_bytes().splitlines() if is_json(line)]
    assert [line["token_sha256"] for line in whole] == [fingerprint(token) for token in tokens]
    assert events(service, RECOVERED)[0]["dropped"] == 0


def is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_a_pipe_that_nobody_reads_holds_up_no_mint(start_service: Start, tmp_path: Path) -> None:
    """It is full after some hundred lines; when it is read, all of them come."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": str(path)}, "--workers", "2")
    with Load(service, clients=4) as load:
        load.wait_for(600)
        wait_until(lambda: events(service, TROUBLE), within=SOON, what="the log event")
        load.wait_for(400)
    assert load.failed == []
    assert max(attempt.seconds for attempt in load.attempts) < 5  # this machine may be slow
    fingerprints = [json.loads(line)["token_sha256"] for line in read_lines(reader, len(load.attempts))]
    os.close(reader)
    assert sorted(fingerprints) == sorted(fingerprint(attempt.token) for attempt in load.attempts)


def test_a_closed_pipe_fails_no_mint(start_service: Start, tmp_path: Path) -> None:
    """And when there is a reader again, it gets what was minted meanwhile."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    service = start_service({**ES256, "MACP_AUTH_AUDIT_LOG": str(path)})
    before = mint(service, 1)
    assert json.loads(read_lines(reader, 1)[0])["token_sha256"] == fingerprint(before[0])
    os.close(reader)
    tokens = mint(service, 5)
    wait_until(lambda: events(service, TROUBLE), within=SOON, what="the log event")
    tokens += mint(service, 5)
    again = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    received = [json.loads(line)["token_sha256"] for line in read_lines(again, len(tokens))]
    os.close(again)
    assert received == [fingerprint(token) for token in tokens]
