"""Bare calls to the transit engine: what the service is held against."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable
from statistics import median

import hvac
import requests
from requests.adapters import HTTPAdapter

from tools.support.openbao import OpenBao

CLIENTS = 64
_DIGEST = base64.b64encode(hashlib.sha256(b"header.claims").digest()).decode()

Call = Callable[[], object]


def bare_client(bao: OpenBao, token: str) -> hvac.Client:
    """Make a client as hvac's own documentation does."""
    return hvac.Client(url=bao.url, token=token)


def tuned_client(bao: OpenBao, token: str) -> hvac.Client:
    """Make a client as a careful user does: a connection for each thread, no environment, time limits."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=CLIENTS))
    return hvac.Client(url=bao.url, token=token, session=session, timeout=(0.5, 2))


def sign_one(client: hvac.Client, key: str) -> Call:
    """Return the call for one signature."""
    return _sign(client, key, hash_input=_DIGEST)


def sign_batch(client: hvac.Client, key: str, size: int) -> Call:
    """Return the call for so many signatures."""
    return _sign(client, key, batch_input=[{"input": _DIGEST}] * size)


def _sign(client: hvac.Client, key: str, **what: object) -> Call:
    return lambda: client.secrets.transit.sign_data(
        key,
        key_version=1,
        hash_algorithm="sha2-256",
        prehashed=True,
        signature_algorithm="pkcs1v15",
        marshaling_algorithm="jws",
        **what,
    )


def rate(call: Call, threads: int, seconds: float) -> float:
    """Return the calls a second of so many threads."""
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


def median_seconds(call: Call, seconds: float) -> float:
    """Return how long a call takes, one after another."""
    ends, times = time.perf_counter() + seconds, []
    while time.perf_counter() < ends:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return median(times)
