"""Replaces replicas under load, one by one: the next one starts and is let in, and an old one is stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from tools.rollout.haproxy import SLOTS, HAProxy
from tools.support.clients import Attempt, Clients, p99
from tools.support.service import Service, clean_environment

REPLICAS = 3
CLIENTS = 16
STOP_SECONDS = 10
_BETWEEN = 100  # tokens from one replacement to the next, so that each happens under full load


class Report(Struct, frozen=True, kw_only=True):
    """What came of a rollout."""

    attempts: list[Attempt]
    exits: list[int]
    """How each replaced replica ended."""
    stop_seconds: list[float]
    redispatched: int
    """Requests that HAProxy gave to another replica because the first no longer took connections."""
    log_faults: list[str]
    """What the replicas logged above warnings."""

    @property
    def failed(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.failure]

    @property
    def faults(self) -> list[str]:
        """All that should not be, in words. Empty if the rollout passed."""
        faults = [f"{len(self.failed)} requests failed: {self.failed[:3]}"] if self.failed else []
        faults += [f"a replica exited with {status}" for status in self.exits if status != 0]
        return [*faults, *self.log_faults[:3]]

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{len(self.exits)} replacements, {len(self.attempts)} requests, {len(self.failed)} failed",
                f"p99 {p99(self.attempts) * 1000:.1f} ms, {self.redispatched} redispatched",
                f"slowest stop {max(self.stop_seconds):.1f} s",
                *(self.faults or ["passed"]),
            ]
        )


def run_rollout(rounds: int, directory: Path, *, say: Callable[[str], None] = lambda _: None) -> Report:
    """Replace a replica ``rounds`` times. All that this starts is gone afterwards."""
    keys_file = directory / "keys.json"
    _make_keys(keys_file)
    settings = {"MACP_AUTH_SIGNER": "jwk-file", "MACP_AUTH_SIGNING_KEYS_FILE": str(keys_file)}
    exits, stop_seconds = [], []
    with ExitStack() as stack:
        haproxy = stack.enter_context(HAProxy(directory))

        def start(slot: str) -> Service:
            replica = stack.enter_context(Service(directory, settings))
            haproxy.take_in(slot, replica.port)
            return replica

        running = deque((slot, start(slot)) for slot in SLOTS[:REPLICAS])
        started = [replica for _, replica in running]
        vacant = SLOTS[REPLICAS]
        with Clients(haproxy.port, started[0].jwks(), count=CLIENTS) as clients:
            for number in range(rounds):
                clients.wait_for(_BETWEEN)
                running.append((vacant, start(vacant)))
                started.append(running[-1][1])
                vacant, old = running.popleft()
                began = time.monotonic()
                old.process.send_signal(signal.SIGTERM)
                exits.append(old.process.wait(STOP_SECONDS))
                stop_seconds.append(time.monotonic() - began)
                haproxy.wait_until_out(vacant)
                say(f"{number + 1} replaced, {len(clients.attempts)} requests, {len(clients.failed)} failed")
            clients.wait_for(_BETWEEN)
        return Report(
            attempts=clients.attempts,
            exits=exits,
            stop_seconds=stop_seconds,
            redispatched=haproxy.count("wredis"),
            log_faults=[
                str(event)
                for replica in started
                for event in replica.events
                if event["level"] not in ("info", "warning")
            ],
        )


def _make_keys(path: Path) -> None:
    command = [sys.executable, "-m", "macp_auth", "keys", "rotate", str(path), "--alg", "ES256"]
    subprocess.run(command, env=clean_environment(), check=True, capture_output=True)
