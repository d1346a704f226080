"""What many slow sockets cost the others: the latency of good requests with them, and without."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from msgspec import Struct

from tools.support.clients import Attempt, Clients, p99
from tools.support.service import Service, wait_until

SLOW_SOCKETS = 500
MOST_TIMES = 2
NOISE_SECONDS = 0.02
"""A p99 below this tells more of the machine's other work than of the service."""
_CLIENTS = 8
_PAUSE = 0.04


class Report(Struct, frozen=True, kw_only=True):
    """What the slow sockets changed."""

    without: list[float]
    """The p99 of good requests in each window without slow sockets, in seconds."""
    among: list[float]
    """The same among them."""
    requests: int
    failures: list[str]

    @property
    def faults(self) -> list[str]:
        """All that should not be, in words. Empty if it passed."""
        faults = [f"{len(self.failures)} requests failed: {self.failures[:3]}"] if self.failures else []
        without, among = min(self.without), min(self.among)  # the windows that other work disturbed least
        if among > max(MOST_TIMES * without, NOISE_SECONDS):
            faults.append(f"the p99 grew from {without * 1000:.1f} to {among * 1000:.1f} ms")
        return [f"slow sockets: {fault}" for fault in faults]

    def __str__(self) -> str:
        without, among = (
            ", ".join(f"{seconds * 1000:.1f}" for seconds in each) for each in (self.without, self.among)
        )
        return (
            f"{SLOW_SOCKETS} slow sockets: {self.requests} good requests, {len(self.failures)} failed; "
            f"p99 among them {among} ms, without {without} ms"
        )


def run_crowd(window_seconds: float, windows: int, directory: Path) -> Report:
    """Measure ``windows`` times without slow sockets and with them, in turns.

    The first sockets are cut after ten seconds: only a longer window sees what that costs.
    """
    without, among = [], []
    with Service(directory, {"MACP_AUTH_SIGNING_ALG": "ES256"}) as service:
        jwks = service.jwks()
        with Clients(service.port, jwks, count=_CLIENTS, pause=_PAUSE) as clients:
            clients.wait_for(200)
            for _ in range(windows):
                without.append(p99(_window(clients, window_seconds)))
                with _slow_sockets(service):
                    among.append(p99(_window(clients, window_seconds)))
    return Report(
        without=without,
        among=among,
        requests=len(clients.attempts),
        failures=[attempt.failure for attempt in clients.failed],
    )


def _window(clients: Clients, seconds: float) -> list[Attempt]:
    began = time.monotonic()
    time.sleep(seconds)
    return clients.since(began)


@contextmanager
def _slow_sockets(service: Service) -> Iterator[None]:
    process = psutil.Process(service.process.pid)
    quiet = process.num_fds()
    slow = subprocess.Popen(
        [sys.executable, "-m", "tools.soak.slow", str(service.port), str(SLOW_SOCKETS)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the command, which then ends it
    )
    try:
        wait_until(
            lambda: process.num_fds() >= quiet + 0.98 * SLOW_SOCKETS,
            within=20,
            what="all slow sockets are open",
        )
        yield
        assert process.num_fds() >= quiet + 0.8 * SLOW_SOCKETS, "too few came back after they were cut"
    finally:
        slow.kill()
        slow.wait()
    wait_until(lambda: process.num_fds() <= quiet + 5, within=20, what="the slow sockets are gone")
