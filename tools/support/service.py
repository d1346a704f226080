"""The service as its users run it: a process, its environment, its log."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any, Self

from tools.support.bounded import HANG_SECONDS

BOOT_SECONDS = 60  # a bound for a machine with much else to do; the start-up figure is the benchmark's


def _ports_of_this_process() -> Iterator[int]:
    # Below what systems give to outgoing connections, and apart from the other processes of this test run:
    # nobody takes a port between this check and the start of the server.
    slice_number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SLICES
    size = (_LAST_PORT - _FIRST_PORT) // _SLICES
    first = _FIRST_PORT + slice_number * size
    start = random.randrange(size)  # noqa: S311 - another test run on this machine begins elsewhere
    return cycle(first + (start + number) % size for number in range(size))


_FIRST_PORT, _LAST_PORT, _SLICES = 10_000, 32_000, 8
_ports = _ports_of_this_process()


def free_port() -> int:
    """A port on which nothing listens, and that no other test is given."""
    for port in _ports:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


def clean_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The test's own environment without any setting of ours, plus ``env``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MACP_AUTH_")}
    inherited.pop("PORT", None)
    return {**inherited, **(env or {})}


def wait_until(condition: Any, *, within: float, what: str) -> None:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(0.02)


class Service:
    """A running service. Use as a context manager; it is gone afterwards, whatever happened."""

    def __init__(
        self,
        directory: Path,
        env: Mapping[str, str] | None = None,
        *args: str,
        prefix: Sequence[str | Path] = (),
    ) -> None:
        """Start it. ``prefix`` comes before the command, as in ``prlimit --nofile=256 macp-auth serve``."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = directory / f"service-{self.port}.log"
        self._command = [*prefix, sys.executable, "-m", "macp_auth", "serve", "--port", str(self.port), *args]
        self._env = clean_environment(env)
        self.audit_path = directory / f"audit-{self.port}.log"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as log, self.audit_path.open("ab") as audit:
            return subprocess.Popen(
                self._command, env=self._env, stdin=subprocess.DEVNULL, stdout=audit, stderr=log
            )

    def start_again(self) -> None:
        """Start it once more, on its port, when it has been stopped."""
        self.process = self._start()
        self.__enter__()

    def __enter__(self) -> Self:
        try:
            wait_until(self._answers, within=BOOT_SECONDS, what="the service answers /healthz")
        except AssertionError:
            self.__exit__()
            raise AssertionError(f"the service did not start:\n{self.log}") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the service exited with {self.process.returncode}")
        try:
            return self.get("/healthz")[0] == 200
        except OSError:
            return False

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log's lines so far."""
        return self._json_lines(self.log_path)

    @property
    def audit_lines(self) -> list[dict[str, Any]]:
        """The audit log's lines so far."""
        return self._json_lines(self.audit_path)

    def _json_lines(self, path: Path) -> list[dict[str, Any]]:
        running = self.process.poll() is None
        text = path.read_text()
        if running:  # it may be in the middle of a line; when it has ended, each line is whole
            text = text[: text.rfind("\n") + 1]
        try:
            return [json.loads(line) for line in text.splitlines()]
        except ValueError:
            raise AssertionError(f"not all lines are JSON:\n{text}") from None

    def get(self, path: str) -> tuple[int, Any]:
        with urllib.request.urlopen(self.url + path, timeout=HANG_SECONDS) as response:
            return response.status, json.load(response)

    def mint(self, **request: Any) -> dict[str, Any]:
        """Mint a token; fails the test if that is refused."""
        http_request = urllib.request.Request(
            f"{self.url}/tokens",
            data=json.dumps(request or {"sender": "agent://risk"}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(http_request, timeout=HANG_SECONDS) as response:
            minted: dict[str, Any] = json.load(response)
        return minted

    def jwks(self) -> dict[str, Any]:
        keys: dict[str, Any] = self.get("/.well-known/jwks.json")[1]
        return keys
