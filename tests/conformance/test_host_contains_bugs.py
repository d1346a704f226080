"""A running service that hosts a signer with a fault: a good token, or 503 and a log line; nothing else."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from macp_auth import Algorithm
from tests.conformance import seeded_bugs
from tests.conformance.seeded_bugs import BUGS, CREDENTIAL, Backend, Bug
from tests.conformance.subjects import SeededSubject, seeded_environment
from tests.support.signers import with_plugins
from tools.support.bounded import HANG_SECONDS
from tools.support.processes import mint_bytes
from tools.support.service import Service, clean_environment, wait_until
from tools.support.verifiers import verify_with_pyjwt
from tools.support.wire import Answer, exchange, request_bytes

PUBLIC_MEMBERS = {"kty", "kid", "alg", "use", "n", "e", "crv", "x", "y"}
TALKERS = {"logs", "shows-in-errors"}
"""What a plugin itself logs, or says in an error of the domain, the host does not read: the kit does."""

START_UPS = {"unpicklable", "unusable-settings"}
"""Faults that stop the service before it listens."""

Hosting = Callable[[str, Path], Service]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which every seeded bug is a plugin."""
    places = {f"seeded-{name}": f"{seeded_bugs.__name__}:bug_{name.replace('-', '_')}" for name in BUGS}
    return with_plugins(tmp_path_factory.mktemp("seeded") / "plugins", "seeded", places)


@pytest.fixture
def hosting(installed: dict[str, str], tmp_path: Path) -> Iterator[Hosting]:
    """Starts a service with a seeded bug."""
    with ExitStack() as stack:

        def start(name: str, folder: Path) -> Service:
            return stack.enter_context(Service(tmp_path, environment(name, folder, installed)))

        yield start


def environment(name: str, folder: Path, installed: dict[str, str]) -> dict[str, str]:
    return {
        **seeded_environment(folder),
        "MACP_AUTH_SIGNER": f"seeded-{name}",
        "MACP_AUTH_KEY_REFRESH_SECONDS": "1",
        **installed,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "backend"
    made.mkdir()
    return made


def fill(folder: Path, bug: Bug) -> None:
    """Two versions, of which the older one signs, or the one that the fault needs."""
    backend = Backend(folder)
    if bug.check == "published-keys-are-good":
        backend.add_key_with_short_x()
        return
    backend.add_key(bug.algorithm, age=100_000)
    backend.add_key(bug.algorithm, age=10)


class Witness:
    """Asks the service for tokens, and lets none pass that a verifier would reject."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._published: dict[str, Any] = {}
        self.minted = 0
        self.refused = 0

    def _mint(self, number: int) -> Answer:
        # A sender each: tokens of one sender and second are the same bytes.
        body = b'{"sender":"agent://risk-%d"}' % number
        return exchange(self._service.port, mint_bytes(body=body))

    def check(self) -> None:
        """Read the JWKS: public members only, and no kid that was another key's."""
        answer = exchange(self._service.port, get("/.well-known/jwks.json"))
        assert answer.status in (200, 503)
        for jwk in answer.json.get("keys", ()):
            assert jwk.keys() <= PUBLIC_MEMBERS
            assert self._published.setdefault(jwk["kid"], jwk) == jwk

    def ask(self, times: int = 1) -> None:
        """Mint, many at once; judge each token by what is published, and was from the beginning."""
        with ThreadPoolExecutor(times) as pool:
            answers = list(pool.map(self._mint, range(times)))
        self.check()
        for answer in answers:
            if answer.status == 200:
                verify_with_pyjwt(answer.json["token"], {"keys": list(self._published.values())})
                self.minted += 1
            else:
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert answer.json == {"error": "tokens can't be signed now; try again"}
                self.refused += 1


def get(path: str) -> bytes:
    return request_bytes("GET", path, [("Host", "localhost")])


def logged(service: Service, pattern: str) -> bool:
    return any(re.search(pattern, str(line.get("detail"))) for line in service.events)


def saw_rotation(service: Service, bug: Bug) -> bool:
    """Whether the service has read the new keys: it says what is wrong with them, or publishes them."""
    if bug.host_logs:
        return logged(service, bug.host_logs)
    return any(line["event"] == "published keys" for line in service.events)


@pytest.mark.slow  # a service for each of them
@pytest.mark.parametrize("name", sorted(BUGS.keys() - START_UPS))
def test_no_bad_token_leaves(name: str, hosting: Hosting, folder: Path) -> None:
    """Each token verifies with the key published first; a refusal is a 503, and the log names the fault."""
    bug = BUGS[name]
    fill(folder, bug)
    service = hosting(name, folder)
    witness = Witness(service)
    witness.check()
    witness.ask()
    witness.ask(8)
    if bug.trouble:
        subject = SeededSubject(bug.plugin("seeded"), seeded_environment(folder))
        _make_trouble(subject, bug.trouble)
        if bug.trouble == "rotate":
            wait_until(
                lambda: saw_rotation(service, bug), within=HANG_SECONDS, what="the service reads the new keys"
            )
        witness.ask(8)
        witness.ask()
    assert service.get("/healthz") == (200, {"ok": True})
    if bug.host_logs:
        wait_until(lambda: logged(service, str(bug.host_logs)), within=HANG_SECONDS, what=str(bug.host_logs))
        assert witness.refused or bug.trouble == "rotate"
    else:
        assert witness.minted
    assert "Traceback" not in service.log
    assert name in TALKERS or CREDENTIAL not in service.log


def _make_trouble(subject: SeededSubject, trouble: str) -> None:
    makers = {"rotate": subject.rotate, "down": subject.break_backend, "hang": subject.hang_backend}
    asyncio.run(makers[trouble]())


@pytest.mark.parametrize("name", sorted(START_UPS))
def test_what_can_never_work_stops_the_start_up(name: str, installed: dict[str, str], folder: Path) -> None:
    """Before anything listens, and the plugin is named."""
    fill(folder, BUGS[name])
    started = subprocess.run(
        [sys.executable, "-m", "macp_auth", "serve"],
        env=clean_environment(environment(name, folder, installed)),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert started.returncode == 2
    assert re.search(str(BUGS[name].host_logs), json.loads(started.stderr.splitlines()[-1])["error"])


def test_an_open_circuit_shows_in_readiness_and_closes(hosting: Hosting, folder: Path) -> None:
    """After failures in a row callers are answered at once; 5 s after the backend is back, tokens flow."""
    bug = BUGS["vendor-error"]
    fill(folder, bug)
    service = hosting("vendor-error", folder)
    witness = Witness(service)
    (folder / "down").touch()
    witness.ask(8)
    assert witness.refused == 8
    wait_until(
        lambda: exchange(service.port, get("/readyz")).json.get("reason") == "circuit-open",
        within=HANG_SECONDS,
        what="readiness says circuit-open",
    )
    opened = [line for line in service.events if line["event"] == "circuit open"]
    assert {line["signer"] for line in opened} == {"seeded-vendor-error"}
    (folder / "down").unlink()

    def minted() -> bool:
        witness.ask()
        return witness.minted > 0

    wait_until(minted, within=HANG_SECONDS, what="a token")


def test_a_good_plugin_mints(hosting: Hosting, folder: Path) -> None:
    """The control: hosting itself refuses nothing, 64 at once included."""
    fill(folder, Bug(signer=BUGS["cuts-input"].signer, check="", says="", algorithm=Algorithm.ES256))
    witness = Witness(hosting("cuts-input", folder))
    witness.check()
    witness.ask(64)
    assert (witness.minted, witness.refused) == (64, 0)
