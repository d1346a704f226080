"""A service whose audit log is required: a token that a caller has is on record, whatever happens."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from macp_auth.adapters.audit.reading import Log
from macp_auth.adapters.audit.verification import verify
from tests.support.metrics import metrics_env, scrape
from tests.vault.load import Load
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import mint_bytes, workers_of
from tools.support.service import Service, clean_environment, free_port, wait_until
from tools.support.wire import Answer, exchange, request_bytes

pytestmark = pytest.mark.slow  # services of their own

REQUIRED = {"MACP_AUTH_SIGNING_ALG": "ES256", "MACP_AUTH_AUDIT_REQUIRED": "on"}
UNAVAILABLE = {"ready": False, "reason": "audit-unavailable"}

Start = Callable[..., Service]


def recorded_in(content: bytes) -> set[str]:
    """The fingerprints of the tokens whose whole line is there."""
    found = set()
    for line in content.splitlines():
        with suppress(ValueError):
            found.add(json.loads(line)["token_sha256"])
    return found


def fingerprints(load: Load) -> set[str]:
    return {hashlib.sha256(attempt.token.encode()).hexdigest() for attempt in load.attempts if attempt.token}


def readiness_of(service: Service) -> Any:
    return exchange(service.port, request_bytes("GET", "/readyz", [("Host", "x")]), method="GET").json


def wait_for_readiness(service: Service, expected: object) -> None:
    wait_until(lambda: readiness_of(service) == expected, within=HANG_SECONDS, what=f"{expected}")


def mint(service: Service) -> Answer:
    return exchange(service.port, mint_bytes())


def assert_unavailable(service: Service) -> None:
    answer = mint(service)
    assert answer.status == 503
    assert answer.json == {"error": "the audit log can't be written now; try again"}
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_service_has_recorded_each_token_that_left(workers: int, tmp_path: Path) -> None:
    """SIGKILL, to all processes, under load; each line is there, though nothing was said to the service."""
    path = tmp_path / "audit.log"
    env = {**REQUIRED, "MACP_AUTH_AUDIT_LOG": str(path)}
    with (
        Service(tmp_path, env, "--workers", str(workers)) as service,
        Load(service, clients=8) as load,
    ):
        load.wait_for(300)
        for process in [psutil.Process(service.process.pid), *workers_of(service)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        wait_until(lambda: load.failed, within=HANG_SECONDS, what="it is gone")
    assert len(fingerprints(load)) >= 300
    assert fingerprints(load) <= recorded_in(path.read_bytes())
    with path.open("rb") as lines:
        assert verify([Log("audit.log", lines)]).findings == []


def test_a_full_disk_lets_no_token_leave_and_recovers(start_service: Start, tmp_path: Path) -> None:
    """503 at once, not ready; when there is room, it mints again, without a restart."""
    path = tmp_path / "audit.log"
    service = start_service({**REQUIRED, **metrics_env(), "MACP_AUTH_AUDIT_LOG": str(path)})
    wait_for_readiness(service, {"ready": True})
    for _ in range(30):
        assert mint(service).status == 200
    process = psutil.Process(service.process.pid)
    process.rlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 150, resource.RLIM_INFINITY))
    began = time.monotonic()
    assert_unavailable(service)
    assert time.monotonic() - began < HANG_SECONDS
    wait_for_readiness(service, UNAVAILABLE)
    for _ in range(5):
        assert_unavailable(service)
    failed = scrape(service).value("macp_auth_mints_total", result="failed", reason="audit-unavailable")
    assert failed == 6
    process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_for_readiness(service, {"ready": True})
    answer = mint(service)
    assert answer.status == 200
    assert hashlib.sha256(answer.json["token"].encode()).hexdigest() in recorded_in(path.read_bytes())
    service.__exit__()
    lines = [json.loads(line) for line in path.read_bytes().splitlines() if line.endswith(b"}")]
    assert sum(line["event"] == "minted" for line in lines) == 32  # one of a token that did not leave
    assert sum(line["reason"] == "audit-unavailable" for line in lines) == 6
    with path.open("rb") as content, service.log_path.open("rb") as log:
        result = verify([Log("audit.log", content)], [Log("service.log", log)])
    assert (result.findings, len(result.notes)) == ([], 1)


def test_a_full_pipe_lets_no_token_leave_and_recovers(tmp_path: Path) -> None:
    """Standard output whose reader has stopped, as a log collector can."""
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    into_pipe = ["sh", "-c", f'exec "$@" >"{fifo}"', "sh"]
    with Service(tmp_path, REQUIRED, prefix=into_pipe) as service:
        wait_for_readiness(service, {"ready": True})
        tokens = []
        while (answer := mint(service)).status == 200:
            tokens.append(answer.json["token"])
            assert len(tokens) < 10_000
        assert len(tokens) > 50
        assert_unavailable(service)
        wait_for_readiness(service, UNAVAILABLE)
        content = b""

        def mints() -> bool:
            nonlocal content
            with suppress(BlockingIOError):
                while part := os.read(reader, 65536):
                    content += part
            return bool(readiness_of(service) == {"ready": True})

        wait_until(mints, within=HANG_SECONDS, what="it is ready again")
        assert mint(service).status == 200
    os.close(reader)
    assert {hashlib.sha256(token.encode()).hexdigest() for token in tokens} <= recorded_in(content)


def test_the_service_does_not_start_without_a_log_that_it_requires() -> None:
    """The message names both variables."""
    env = {"MACP_AUTH_AUDIT_REQUIRED": "on", "MACP_AUTH_AUDIT_LOG": "off"}
    ended = subprocess.run(
        [sys.executable, "-m", "macp_auth", "serve", "--port", str(free_port())],
        env=clean_environment(env),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert ended.returncode == 2
    assert all(name in ended.stderr for name in env)
