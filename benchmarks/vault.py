"""The signer vault-transit beside bare hvac, on one OpenBao: ``make bench-vault``.

All in one run, alternating: a slow spell of the machine falls on all of them. The server has one half
of this machine's cores, as it has a machine of its own where it matters; the other half is for the
service and its load, or for the bare loops. With --shared, all take what they get.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from statistics import median

import hvac
import msgspec
import requests
from msgspec import Struct
from requests.adapters import HTTPAdapter
from tests.support.openbao import OpenBao
from tests.vault.environment import with_token

from benchmarks import load
from benchmarks.service import Service

CLIENTS = 64
BATCH, BATCH_CALLS = 64, 4  # as much at a time as the server gains from
WARM_UP_SECONDS = 1
KEY_TYPES = {"ES256": "ecdsa-p256", "RS256": "rsa-2048"}
DIGEST = base64.b64encode(hashlib.sha256(b"header.claims").digest()).decode()


class Figures(Struct, frozen=True, kw_only=True):
    """One round for one algorithm."""

    bare_hvac_per_second: float
    """Tokens of ``CLIENTS`` threads, each with one ``sign_data`` call a token, of hvac as it comes."""
    hvac_per_second: float
    """The same of a tuned hvac."""
    server_per_second: float
    """Signatures that the server makes in batches."""
    service_per_second: float
    """Tokens of the service for ``CLIENTS`` connections."""
    hvac_p50_ms: float
    """One tuned ``sign_data`` call after another."""
    service_p50_ms: float
    """One request for a token after another."""
    failed: int


class Availability(Struct, frozen=True, kw_only=True):
    """How the JWKS fares under load when Vault does not."""

    jwks_p99_ms: float
    jwks_p99_ms_while_stopped: float


def main() -> int:
    """Bench, print, and return the exit status: 1 if a request failed, 2 if it can't begin."""
    parser = argparse.ArgumentParser(prog="benchmarks.vault", description=__doc__)
    parser.add_argument("--seconds", type=int, default=4, help="of each load (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default %(default)s)")
    parser.add_argument("--shared", action="store_true", help="let the server share all cores")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    options = parser.parse_args()
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # bare hvac's pool is smaller than the threads
    if shutil.which("wrk") is None:
        print("bench: wrk is not installed; it is in Debian's package `wrk`", file=sys.stderr)
        return 2
    placed = nullcontext if options.shared else _on_half_of_the_cores
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        with placed():
            bao = stack.enter_context(OpenBao(Path(directory)))
        rounds: dict[str, list[Figures]] = {algorithm: [] for algorithm in KEY_TYPES}
        for algorithm, key_type in KEY_TYPES.items():
            bao.create_key(algorithm, key_type)
        for number in range(1, options.rounds + 1):
            for algorithm, done in rounds.items():
                print(f"round {number} of {options.rounds}: {algorithm}", file=sys.stderr)
                done.append(_measure(bao, algorithm, options.seconds))
        availability = _measure_availability(bao, options.seconds)
    if options.json:
        print(msgspec.json.encode({"rounds": rounds, "availability": availability}).decode())
    else:
        print(_as_text(rounds, availability))
    return int(any(figures.failed for done in rounds.values() for figures in done))


@contextmanager
def _on_half_of_the_cores() -> Iterator[None]:
    """What is started meanwhile has the second half of them; afterwards, this process has the first."""
    cores = sorted(os.sched_getaffinity(0))
    middle = len(cores) // 2
    os.sched_setaffinity(0, cores[middle:])
    yield
    os.sched_setaffinity(0, cores[:middle] or cores)


def _measure(bao: OpenBao, key: str, seconds: int) -> Figures:
    environment = with_token(bao, key)
    with Service(environment, 1) as service:
        service.wait_for_first_token()
        load.mint(service.port, seconds=WARM_UP_SECONDS, connections=CLIENTS)
        many = load.mint(service.port, seconds=seconds, connections=CLIENTS)
        one = load.mint(service.port, seconds=seconds, connections=1)
    # The same token for all: what its policies are makes a difference of 0.15 ms a call.
    bare, tuned = (make(bao, environment["VAULT_TOKEN"]) for make in (_bare_client, _tuned_client))
    one_call = _signing(tuned, key, 1)
    alone = _call_times(one_call, seconds)
    return Figures(
        bare_hvac_per_second=_rate(_signing(bare, key, 1), CLIENTS, seconds),
        hvac_per_second=_rate(one_call, CLIENTS, seconds),
        server_per_second=BATCH * _rate(_signing(tuned, key, BATCH), BATCH_CALLS, seconds),
        service_per_second=many.requests / many.duration_us * 1e6,
        hvac_p50_ms=median(alone) * 1e3,
        service_p50_ms=one.p50_us / 1e3,
        failed=sum(each.non_2xx + each.socket_errors for each in (many, one)),
    )


def _measure_availability(bao: OpenBao, seconds: int) -> Availability:
    with Service(with_token(bao, "ES256"), 1) as service, ThreadPoolExecutor(1) as background:
        service.wait_for_first_token()

        def under_load() -> load.Load:
            minting = background.submit(load.mint, service.port, seconds=seconds + 1, connections=16)
            time.sleep(0.5)  # the load is there; a bench may wait for no more than that
            keys = load.fetch_keys(service.port, seconds=seconds, connections=8)
            minting.result()
            return keys

        up = under_load()
        bao.stop()
        down = under_load()
    return Availability(jwks_p99_ms=up.p99_us / 1e3, jwks_p99_ms_while_stopped=down.p99_us / 1e3)


def _bare_client(bao: OpenBao, token: str) -> hvac.Client:
    """As hvac's own documentation makes one."""
    return hvac.Client(url=bao.url, token=token)


def _tuned_client(bao: OpenBao, token: str) -> hvac.Client:
    """As a careful user makes one: a connection for each thread, no environment, time limits."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=CLIENTS))
    return hvac.Client(url=bao.url, token=token, session=session, timeout=(0.5, 2))


def _signing(client: hvac.Client, key: str, batch: int) -> Callable[[], object]:
    what = {"hash_input": DIGEST} if batch == 1 else {"batch_input": [{"input": DIGEST}] * batch}
    return lambda: client.secrets.transit.sign_data(
        key,
        key_version=1,
        hash_algorithm="sha2-256",
        prehashed=True,
        signature_algorithm="pkcs1v15",
        marshaling_algorithm="jws",
        **what,
    )


def _rate(call: Callable[[], object], threads: int, seconds: float) -> float:
    """Calls a second of so many threads."""
    ends = time.perf_counter() + seconds
    counts: list[int] = []

    def repeat() -> None:
        count = 0
        while time.perf_counter() < ends:
            call()
            count += 1
        counts.append(count)

    began = time.perf_counter()
    workers = [threading.Thread(target=repeat) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - began)


def _call_times(call: Callable[[], object], seconds: float) -> list[float]:
    times = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return times


ROWS: dict[str, Callable[[Figures], float]] = {
    "bare hvac, one call a token, 64 threads: tokens/s": lambda f: f.bare_hvac_per_second,
    "tuned hvac, the same: tokens/s": lambda f: f.hvac_per_second,
    "the server in batches: signatures/s": lambda f: f.server_per_second,
    "the service, 64 clients: tokens/s": lambda f: f.service_per_second,
    "the service : bare hvac": lambda f: f.service_per_second / f.bare_hvac_per_second,
    "the service : tuned hvac": lambda f: f.service_per_second / f.hvac_per_second,
    "the service : the server": lambda f: f.service_per_second / f.server_per_second,
    "tuned hvac, one call after another: p50 ms": lambda f: f.hvac_p50_ms,
    "the service, one client: p50 ms": lambda f: f.service_p50_ms,
    "the service, one client : tuned hvac": lambda f: f.service_p50_ms / f.hvac_p50_ms,
}


def _as_text(rounds: dict[str, list[Figures]], availability: Availability) -> str:
    lines = ["".ljust(52) + "".join(algorithm.ljust(36) for algorithm in rounds)]
    for label, figure in ROWS.items():
        cells = []
        for done in rounds.values():
            values = [figure(each) for each in done]
            cells.append(f"{median(values):,.2f} ({min(values):,.2f} to {max(values):,.2f})".ljust(36))
        lines.append(label.ljust(52) + "".join(cells))
    stopped = availability.jwks_p99_ms_while_stopped
    lines.append(
        f"JWKS p99 under load, ms: {availability.jwks_p99_ms:.2f}; while Vault is stopped: {stopped:.2f}"
    )
    lines.append(f"failed requests: {sum(each.failed for done in rounds.values() for each in done)}")
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
