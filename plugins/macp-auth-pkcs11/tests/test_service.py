"""Tokens from the real service, whose workers sign on a real PKCS#11 module."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import psutil
import pytest

if TYPE_CHECKING:  # importable by mypy only: pytest imports each test file apart
    from conftest import SoftHSM


class Service:
    """A running ``macp-auth serve``."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = process
        self.log = log

    def get(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """The status and the JSON of an answer; with a body, of a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None

    def mint(self, number: int = 0) -> str:
        """A token that PyJWT has verified; the kid that signed it."""
        status, answer = self.get("/tokens", {"sender": f"agent://{number}"})
        assert status == 200, self.log.read_text()
        key = self.published(jwt.get_unverified_header(answer["token"])["kid"])
        claims = jwt.decode(answer["token"], key, algorithms=[key.algorithm_name], audience="macp-runtime")
        assert claims["sub"] == f"agent://{number}"
        return str(key.key_id)

    def published(self, kid: str) -> jwt.PyJWK:
        return jwt.PyJWKSet.from_dict(self.get("/.well-known/jwks.json")[1])[kid]

    def kids(self) -> set[str]:
        return {key["kid"] for key in self.get("/.well-known/jwks.json")[1]["keys"]}


@contextmanager
def serving(hsm: SoftHSM, directory: Path, *args: str) -> Iterator[Service]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MACP_AUTH_")}
    env = {**inherited, **hsm.variables, "MACP_AUTH_KEY_REFRESH_SECONDS": "1"}
    log = directory / "service.log"
    command = [sys.executable, "-m", "macp_auth", "serve", "--port", str(port), *args]
    with (
        log.open("wb") as stream,
        subprocess.Popen(command, env=env, stdout=stream, stderr=stream) as process,
    ):
        service = Service(port, process, log)
        try:
            eventually(lambda: process.poll() is None and answers(service))
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def answers(service: Service) -> bool:
    try:
        return service.get("/healthz")[0] == 200
    except OSError:
        return False


def eventually(condition: Callable[[], bool], within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


@pytest.mark.parametrize("key_type", ["rsa:2048", "EC:prime256v1"])
def test_service_mints(hsm: SoftHSM, tmp_path: Path, key_type: str) -> None:
    """Tokens from the token verify, the service ends cleanly, and its log is JSON without the PIN."""
    hsm.generate("macp", "01", key_type)
    with serving(hsm, tmp_path) as service, ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(service.mint, range(64)))) == 1
    assert service.process.returncode == 0
    log = service.log.read_text()
    assert hsm.pin not in log
    assert [json.loads(line) for line in log.splitlines()]


def test_workers_sign_with_the_same_keys(hsm: SoftHSM, tmp_path: Path) -> None:
    """Two worker processes, each with a session of its own, publish and sign alike."""
    hsm.generate("macp", "01")
    with serving(hsm, tmp_path, "--workers", "2") as service:

        def loaded_in() -> list[int]:
            processes = psutil.Process(service.process.pid).children(recursive=True)
            return [
                process.pid
                for process in processes
                if any("softhsm" in region.path for region in process.memory_maps())
            ]

        eventually(lambda: len(loaded_in()) == 2)
        parent = psutil.Process(service.process.pid).memory_maps()
        assert not any("softhsm" in region.path for region in parent)
        with ThreadPoolExecutor(8) as pool:
            minted = Counter(pool.map(service.mint, range(64)))
        assert minted.keys() == service.kids()
    assert service.process.returncode == 0


def test_rotation_and_withdrawal(hsm: SoftHSM, tmp_path: Path) -> None:
    """A new key is published and does not sign yet; an older time signs; a deleted key is gone."""
    hsm.generate("macp", "01")
    with serving(hsm, tmp_path) as service:
        first = service.mint()
        hsm.generate(f"macp@{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "02")
        eventually(lambda: len(service.kids()) == 2)
        assert service.mint() == first
        hsm.generate(f"macp@{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}", "03", "rsa:2048")
        eventually(lambda: first not in service.kids())  # replaced a day ago, by its times
        assert service.mint() != first
        assert service.published(service.mint()).algorithm_name == "RS256"
        signing = service.mint()
        hsm.delete("03")
        eventually(lambda: signing not in service.kids())


def test_wrong_pin_is_an_answer_and_a_log_line(hsm: SoftHSM, tmp_path: Path) -> None:
    """With a wrong PIN the service runs, mints nothing, and says why; with the right one it mints."""
    hsm.generate("macp", "01")
    hsm.write_pin("wrong-pin-0000")
    with serving(hsm, tmp_path) as service:
        assert service.get("/tokens", {"sender": "agent://risk"})[0] == 503
        assert "refuses the PIN (PinIncorrect)" in service.log.read_text()
        hsm.write_pin(hsm.pin)
        eventually(lambda: service.get("/tokens", {"sender": "agent://risk"})[0] == 200)
    assert "wrong-pin" not in service.log.read_text()
