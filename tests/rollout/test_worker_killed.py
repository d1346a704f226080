"""A worker dies under load: that costs the requests it was serving, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psutil

from tools.support.clients import Clients
from tools.support.processes import connection, workers_of
from tools.support.service import BOOT_SECONDS, Service, wait_until
from tools.support.wire import read_answer, request_bytes

BACK_SECONDS = 2
"""Or as long as a whole start takes, on a machine so busy that this is longer."""
CLIENTS_EACH = 8
PAUSE = 0.05  # seconds: three hundred tokens a second from all of them
_JWKS = request_bytes("GET", "/.well-known/jwks.json", [("Host", "localhost")])


def client_ports(worker: psutil.Process) -> set[int]:
    """The other ends of the connections that this very worker holds."""
    return {opened.raddr.port for opened in worker.net_connections("tcp") if opened.raddr}


def keys_from(worker: psutil.Process, port: int) -> Any:
    """The keys that a new connection gets, if it is this worker that answers; else None."""
    with connection(port) as sock:
        sock.sendall(_JWKS)
        keys = json.loads(read_answer(sock).body)
        return keys if sock.getsockname()[1] in client_ports(worker) else None


@contextmanager
def clients_of(worker: psutil.Process, other: psutil.Process, port: int, jwks: Any) -> Iterator[Clients]:
    """Clients that are all connected to ``worker``: the other one stands still while they connect."""
    with ExitStack() as stack:
        other.suspend()
        try:
            clients = stack.enter_context(Clients(port, jwks, count=CLIENTS_EACH, pause=PAUSE))
            wait_until(lambda: len(client_ports(worker)) >= CLIENTS_EACH, within=4, what="all are connected")
        finally:
            other.resume()
        yield clients


def test_a_killed_worker_takes_only_its_requests_along(start_service: Callable[..., Service]) -> None:
    """At most one request on each of its connections fails; within two seconds the same keys are back."""
    starting = time.monotonic()
    service = start_service({"MACP_AUTH_SIGNING_ALG": "ES256"}, "--workers", "2")
    jwks = service.jwks()
    wait_until(lambda: service.log.count('"event":"ready"') == 2, within=BOOT_SECONDS, what="both are ready")
    start_seconds = time.monotonic() - starting
    killed, survivor = workers_of(service)
    with (
        clients_of(killed, survivor, service.port, jwks) as unlucky,
        clients_of(survivor, killed, service.port, jwks) as lucky,
    ):
        unlucky.pause = 0  # so that most have a request in flight
        unlucky.wait_for(200)
        cut_off = client_ports(killed)
        began = time.monotonic()
        killed.kill()
        wait_until(lambda: not killed.is_running(), within=5, what="the supervisor has seen it")
        dead = time.monotonic()
        unlucky.pause = PAUSE

        def new_workers() -> list[psutil.Process]:
            return [worker for worker in workers_of(service) if worker not in (killed, survivor)]

        wait_until(new_workers, within=10, what="there is a new worker")
        [new] = new_workers()
        wait_until(lambda: keys_from(new, service.port) == jwks, within=10, what="the same keys are back")
        back = time.monotonic() - began
        unlucky.wait_for(100)
        lucky.wait_for(100)
    assert not lucky.failed
    failed = unlucky.failed
    ports = [attempt.client_port for attempt in failed]
    assert len(set(ports)) == len(ports), failed
    assert set(ports) <= cut_off, failed
    assert all(attempt.began <= dead for attempt in failed), failed
    print(f"{len(failed)} of {len(cut_off)} requests cut off; back in {back:.2f} s")  # noqa: T201 - its figures
    assert back < max(BACK_SECONDS, start_seconds)
