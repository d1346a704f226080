"""Readiness of a running service, over a socket: it goes within five seconds, and comes back within five."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import jwks
from tools.support.processes import mint_bytes, workers_of
from tools.support.service import Service, wait_until
from tools.support.wire import Answer, exchange, request_bytes

WITHIN = 5
PROBE = request_bytes("GET", "/readyz", [("Host", "localhost")])

# Its backend is a file, which says what is the matter with it.
PLUGIN = """
import asyncio, os, pathlib
from typing import Annotated
from msgspec import Meta, Struct
import msgspec
from macp_auth import hookimpl
from macp_auth.adapters.signers import ephemeral
from macp_auth.adapters.signers.local import LocalSigner
from macp_auth.domain.errors import SignerUnavailable

class Settings(Struct, frozen=True):
    backend: Annotated[str, Meta(description="", extra={"expects": "a path"})]

class Remote(LocalSigner):
    def __init__(self, state):
        self.backend, keys = state
        super().__init__(keys)

    async def sign(self, kid, signing_input):
        fault = pathlib.Path(self.backend).read_text()
        while fault == "hangs":
            await asyncio.sleep(0.05)
            fault = pathlib.Path(self.backend).read_text()
        if fault == "unavailable":
            raise SignerUnavailable("backend.internal is down")
        if fault:
            raise ValueError("backend.internal says " + fault)
        return await super().sign(kid, signing_input)

def prepare(settings):
    return settings.backend, ephemeral.prepare(ephemeral.EphemeralSettings("ES256"))

@hookimpl
def macp_auth_signer():
    return msgspec.structs.replace(ephemeral.macp_auth_signer(), name="remote", settings=Settings,
                                   settings_prefix="MACP_AUTH_REMOTE_", prepare=prepare, open=Remote)
"""


def readyz(service: Service) -> Answer:
    return exchange(service.port, PROBE, method="GET", within=2)


def wait_for(service: Service, status: int, *, reason: str = "[a-z-]+", within: float = WITHIN) -> None:
    def answered() -> bool:
        answer = readyz(service)
        assert answer.headers["cache-control"] == "no-store"
        if answer.status == 200:
            assert answer.json == {"ready": True}
        else:
            assert answer.json.keys() == {"ready", "reason"}
            assert answer.json["ready"] is False
            assert re.fullmatch("[a-z-]+", answer.json["reason"])
        return answer.status == status and (
            status == 200 or bool(re.fullmatch(reason, answer.json["reason"]))
        )

    wait_until(answered, within=within, what=f"/readyz answers {status}, {reason}")


@pytest.fixture
def backend(tmp_path: Path) -> Path:
    path = tmp_path / "backend"
    path.write_text("")
    return path


@pytest.fixture
def environment(tmp_path: Path, backend: Path) -> dict[str, str]:
    """Where the plugin is installed, and the settings that select it."""
    site = tmp_path / "site"
    info = site / "remote_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "remote_plugin.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: remote-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[macp_auth]\nremote = remote_plugin\n")
    return {
        "PYTHONPATH": str(site),
        "MACP_AUTH_SIGNER": "remote",
        "MACP_AUTH_REMOTE_BACKEND": str(backend),
    }


def changes(service: Service) -> list[str]:
    """The changes that were logged; one state may have several reasons."""
    return [event["event"] for event in service.events if event["event"] in ("ready", "not ready")]


def test_a_backend_that_fails_and_returns(
    start_service: Callable[..., Service], environment: dict[str, str], backend: Path
) -> None:
    """Five seconds either way, counted from the freshest proof there can be; /healthz never minds."""
    service = start_service(environment)
    wait_for(service, 200)
    faults = ("unavailable", "hangs", "nonsense")
    for fault in faults:
        assert exchange(service.port, mint_bytes()).status == 200
        backend.write_text(fault)
        failed = time.monotonic()
        with suppress(TimeoutError):
            assert exchange(service.port, mint_bytes(), within=0.5).status >= 500
        wait_for(service, 503, within=failed + WITHIN - time.monotonic())
        assert service.get("/healthz") == (200, {"ok": True})
        backend.write_text("")
        wait_for(service, 200)
    logged = [event for event, _ in itertools.groupby(changes(service))]
    assert logged == ["ready", *["not ready", "ready"] * len(faults)]


def test_each_worker_answers_for_itself(
    start_service: Callable[..., Service], environment: dict[str, str], backend: Path
) -> None:
    """Every worker finds out itself."""
    service = start_service(environment, "--workers", "2")
    wait_until(lambda: changes(service).count("ready") == 2, within=WITHIN, what="both workers are ready")
    assert len(workers_of(service)) == 2
    backend.write_text("unavailable")
    wait_until(lambda: service.log.count("backend.internal is down") == 2, within=WITHIN, what="both know")
    assert {readyz(service).status for _ in range(20)} == {503}
    backend.write_text("")
    wait_until(lambda: changes(service).count("ready") == 4, within=WITHIN, what="both are ready again")
    assert {readyz(service).status for _ in range(20)} == {200}


def test_keys_that_can_not_be_read_grow_stale(start_service: Callable[..., Service], tmp_path: Path) -> None:
    """The file of keys is gone: tokens are minted on, but a replica that follows no rotation is not ready."""
    path = tmp_path / "keys.json"
    document = json.dumps({"keys": [{**jwks.ec(), "kid": "k"}]})

    def write() -> None:
        path.touch(0o600)
        path.write_text(document)

    write()
    service = start_service(
        {
            "MACP_AUTH_SIGNER": "jwk-file",
            "MACP_AUTH_SIGNING_KEYS_FILE": str(path),
            "MACP_AUTH_KEY_REFRESH_SECONDS": "1",
        }
    )
    wait_for(service, 200)
    path.unlink()
    wait_for(service, 503, reason="stale-keys", within=3 + WITHIN)
    assert service.mint()["token"]
    write()
    wait_for(service, 200)
