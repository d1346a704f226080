"""Readiness of a running service, over a socket: it goes within five seconds, and comes back within five."""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import jwks
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import connection, mint_bytes, read_to_end, send_and_read_to_end, workers_of
from tools.support.service import Service, free_port, wait_until
from tools.support.wire import Answer, exchange, read_answer, request_bytes

pytestmark = pytest.mark.slow  # services of their own

WITHIN = 5
PROBE = request_bytes("GET", "/readyz", [("Host", "localhost")])
PROBE_OF_KEYS = request_bytes("GET", "/readyz/keys", [("Host", "localhost")])

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


@pytest.mark.parametrize("workers", ["1", "2"])
def test_keys_stay_ready_when_a_signer_fails(
    start_service: Callable[..., Service], environment: dict[str, str], backend: Path, workers: str
) -> None:
    """On both listeners; what can't be minted takes no pod away from verifiers."""
    env = {**environment, "MACP_AUTH_JWKS_PORT": str(free_port())}
    service = start_service(env, "--workers", workers)
    ports = (service.port, int(env["MACP_AUTH_JWKS_PORT"]))
    wait_until(
        lambda: changes(service).count("ready") == int(workers), within=HANG_SECONDS, what="all are ready"
    )
    backend.write_text("unavailable")
    wait_until(
        lambda: changes(service).count("not ready") == int(workers), within=WITHIN, what="no worker is ready"
    )
    for port in ports * 10:
        assert exchange(port, PROBE, method="GET").status == 503
        answer = exchange(port, PROBE_OF_KEYS, method="GET")
        assert (answer.status, answer.json) == (200, {"ready": True})
        assert answer.headers["cache-control"] == "no-store"


def test_keys_of_a_signer_that_never_signed_are_not_ready(
    start_service: Callable[..., Service], environment: dict[str, str], backend: Path
) -> None:
    """Although there are some: a new replica that can't sign must stop the rollout."""
    backend.write_text("unavailable")
    env = {**environment, "MACP_AUTH_JWKS_PORT": str(free_port())}
    service = start_service(env)
    wait_for(service, 503, reason="unavailable")
    assert service.jwks()["keys"]
    for port in (service.port, int(env["MACP_AUTH_JWKS_PORT"])):
        for probe in (PROBE, PROBE_OF_KEYS):
            answer = exchange(port, probe, method="GET")
            assert (answer.status, answer.json) == (503, {"ready": False, "reason": "unavailable"})
    backend.write_text("")
    wait_for(service, 200)
    assert exchange(service.port, PROBE_OF_KEYS, method="GET").status == 200


def test_a_mint_that_must_be_tried_again_ends_its_connection(
    start_service: Callable[..., Service], environment: dict[str, str], backend: Path
) -> None:
    """The next one may reach a replica that can. A client that sent more on that connection gets no reset."""
    service = start_service(environment)
    wait_for(service, 200)
    with connection(service.port) as kept:
        for body, status in ((b'{"sender":"a"}', 200), (b"{}", 400), (b'{"sender":"a"}', 200)):
            kept.sendall(mint_bytes(body=body))
            answer = read_answer(kept)
            assert (answer.status, "connection" in answer.headers) == (status, False)
        backend.write_text("unavailable")
        kept.sendall(mint_bytes())
        end = read_to_end(kept)
    [refused] = end.answers()
    assert (refused.status, refused.headers["connection"]) == (503, "close")
    assert end.clean
    for following in (mint_bytes() * 3, mint_bytes()[:-5], mint_bytes() * 2000):
        end = send_and_read_to_end(service.port, mint_bytes() + following)
        assert (end.statuses, end.clean) == ([503], True)


def test_requests_that_come_late_meet_no_reset(
    start_service: Callable[..., Service], environment: dict[str, str], backend: Path
) -> None:
    """A client that pipelines may send them before it has read the 503, which a reset can destroy."""
    backend.write_text("unavailable")
    service = start_service(environment)
    wait_for(service, 503, reason="unavailable")
    with connection(service.port) as hasty:
        hasty.sendall(mint_bytes())
        hasty.recv(1, socket.MSG_PEEK)
        for _ in range(3):
            time.sleep(0.05)  # a reset is reported by the next call
            hasty.sendall(mint_bytes())
        end = read_to_end(hasty)
    assert (end.statuses, end.clean) == ([503], True)
