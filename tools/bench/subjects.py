"""What is compared: the service with each signer, and what it stands beside."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from msgspec import Struct

from macp_auth.adapters import jose
from macp_auth.domain.keys import Algorithm
from tools.bench.service import Server, Service
from tools.support.repository import ROOT
from tools.support.service import free_port

BESIDE = "Beside it"
"""The group of what is not the service."""
LATER_SECONDS = 30 * 86400  # no run lasts so long


class Subject(Struct, frozen=True):
    """One thing to measure."""

    group: str
    name: str
    start: Callable[[], AbstractContextManager[Server]]
    algorithm: Algorithm | None = None
    """Of our service's signatures; None for a server of another kind."""


def of_service(algorithm: Algorithm, signer: str) -> Subject:
    """Return the service with one of ``SIGNERS``."""
    return Subject(algorithm, signer, partial(SIGNERS[signer], algorithm), algorithm)


def of_echo() -> Subject:
    """Return the bare Litestar route, on the same server with the same event loop and parser."""
    return Subject(BESIDE, "bare Litestar route", _echo)


def of_peer(command: str, environment: Mapping[str, str]) -> Subject:
    """Return any other service. It gets its port in ``PORT``."""
    return Subject(BESIDE, "peer", partial(_peer, shlex.split(command), environment))


def ephemeral(algorithm: Algorithm, workers: int = 1) -> Service:
    """Start the service with a key of its own."""
    return Service({"MACP_AUTH_SIGNER": "ephemeral", "MACP_AUTH_SIGNING_ALG": algorithm}, workers)


@contextmanager
def jwk_file(algorithm: Algorithm, published: int = 1) -> Iterator[Service]:
    """Start the service with so many keys from a file, of which the first signs."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "keys.json")
        path.touch(mode=0o600)
        path.write_text(json.dumps({"keys": [_jwk(algorithm, number) for number in range(published)]}))
        environment = {"MACP_AUTH_SIGNER": "jwk-file", "MACP_AUTH_SIGNING_KEYS_FILE": str(path)}
        with Service(environment, workers=1) as service:
            yield service


SIGNERS: dict[str, Callable[[Algorithm], AbstractContextManager[Server]]] = {
    "ephemeral": ephemeral,
    "jwk-file": jwk_file,
}


def _jwk(algorithm: Algorithm, number: int) -> dict[str, object]:
    jwk: dict[str, object] = {**jose.private_jwk(jose.generate(algorithm)), "kid": f"key-{number}"}
    return jwk if number == 0 else {**jwk, "nbf": int(time.time()) + LATER_SECONDS}


def _echo() -> Server:
    port = free_port()
    options = "--workers 1 --loop uvloop --http httptools --no-access-log --log-level warning"
    place = ["--app-dir", str(ROOT), "--port", str(port)]
    command = [sys.executable, "-m", "uvicorn", "tools.bench.echo:app", *options.split(), *place]
    return Server(command, {}, port)


def _peer(command: Sequence[str], environment: Mapping[str, str]) -> Server:
    port = free_port()
    return Server(command, {**environment, "PORT": str(port)}, port)
