"""Steps of the wall clock under a running service. libfaketime sets its clock, and not the machine's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import jwt
import pytest

from tests.support import jwks
from tests.support.faked_clock import FakedClock
from tests.support.metrics import metrics_env, scrape
from tools.support.processes import mint_bytes
from tools.support.service import BOOT_SECONDS, Service, wait_until
from tools.support.wire import Answer, exchange, request_bytes

pytestmark = pytest.mark.slow  # waits for the clock, many times

WITHIN = 15
STEPPED, TRUSTED = "clock stepped; no tokens until it is trusted again", "clock trusted again"


class Stepped:
    """A service whose wall clock is stepped by writing a file."""

    def __init__(self, directory: Path, env: dict[str, str], workers: int) -> None:
        clock = FakedClock(directory)
        self.step_to = clock.step_to
        settings = {"MACP_AUTH_SIGNING_ALG": "ES256", **clock.env, **env}
        self.service = Service(directory, settings, "--workers", str(workers))

    def mint(self, ttl: int) -> Answer:
        body = json.dumps({"sender": "a", "ttl_seconds": ttl}).encode()
        return exchange(self.service.port, mint_bytes(body=body))

    def readyz(self) -> Answer:
        return exchange(
            self.service.port, request_bytes("GET", "/readyz", [("Host", "localhost")]), method="GET"
        )

    def logged(self, event: str) -> int:
        """How often, by all workers."""
        return [each["event"] for each in self.service.events].count(event)

    def wait_for(self, status: int) -> None:
        """Wait until every worker says so, whichever is asked."""
        wait_until(
            lambda: {self.readyz().status for _ in range(10)} == {status},
            within=WITHIN,
            what=f"/readyz answers {status}",
        )

    def offsets(self) -> list[float]:
        """What each worker tells."""
        return list(scrape(self.service).values("macp_auth_clock_offset_seconds", "worker").values())

    def wait_for_log(self, event: str, times: int) -> None:
        wait_until(lambda: self.logged(event) == times, within=WITHIN, what=f"{times} times {event}")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Stepped]]:
    with ExitStack() as stack:

        def start(env: dict[str, str] | None = None, workers: int = 1) -> Stepped:
            stepped = Stepped(tmp_path, env or {}, workers)
            stack.enter_context(stepped.service)
            # A worker that starts after a step believes the clock that it finds.
            wait_until(lambda: stepped.logged("ready") == workers, within=BOOT_SECONDS, what="all are ready")
            return stepped

        yield start


def exp_of(answer: Answer) -> int:
    exp: int = jwt.decode(answer.json["token"], options={"verify_signature": False})["exp"]
    return exp


@pytest.mark.parametrize("workers", [1, 2])
def test_minting_pauses_while_the_clock_is_wrong(start: Callable[..., Stepped], workers: int) -> None:
    """Forward and back; at once, and until it is right again. Keys and liveness do not mind."""
    stepped = start(metrics_env(), workers)
    keys = stepped.service.jwks()
    for number, seconds in enumerate((86400, -86400, 120), 1):
        stepped.step_to(seconds)
        for _ in range(10):
            answer = stepped.mint(60)
            assert (answer.status, answer.json) == (503, {"error": "the clock is not trusted now; try again"})
            assert int(answer.headers["retry-after"]) >= 1
        stepped.wait_for_log(STEPPED, number * workers)
        stepped.wait_for_log("not ready", number * workers)
        stepped.wait_for(503)
        wait_until(
            lambda ahead=seconds: [round(offset, -1) for offset in stepped.offsets()] == [ahead] * workers,
            within=WITHIN,
            what="the offset shows",
        )
        assert stepped.readyz().json == {"ready": False, "reason": "clock-step"}
        assert stepped.service.get("/healthz") == (200, {"ok": True})
        assert stepped.service.jwks() == keys
        stepped.step_to(0)
        assert stepped.mint(60).status == 200
        stepped.wait_for_log(TRUSTED, number * workers)
        stepped.wait_for_log("ready", (number + 1) * workers)
        stepped.wait_for(200)
    assert "Traceback" not in stepped.service.log


def test_no_key_comes_or_goes_because_the_clock_jumped(start: Callable[..., Stepped], tmp_path: Path) -> None:
    """A new key signs when its lead has passed, and a clock that is a day ahead is not that."""
    path = tmp_path / "keys.json"
    path.touch(0o600)
    keys = [{**jwks.ec(), "kid": "old"}, {**jwks.rsa(), "kid": "new", "iat": time.time()}]
    path.write_text(json.dumps({"keys": keys}))
    file = {"MACP_AUTH_SIGNER": "jwk-file", "MACP_AUTH_SIGNING_KEYS_FILE": str(path)}
    stepped = start({**file, "MACP_AUTH_KEY_REFRESH_SECONDS": "1"})
    stepped.step_to(86400)
    stepped.wait_for(503)
    path.write_text(json.dumps({"keys": [*keys, {**jwks.ec(), "kid": "newer", "iat": time.time()}]}))
    wait_until(lambda: "newer" in stepped.service.log, within=WITHIN, what="the keys are read")
    assert [key["kid"] for key in stepped.service.jwks()["keys"]] == ["old", "new", "newer"]
    stepped.step_to(0)
    assert jwt.get_unverified_header(stepped.mint(60).json["token"])["kid"] == "old"
    [signing] = [event["kid"] for event in stepped.service.events if event["event"] == "signing key"]
    assert signing == "old"


@pytest.mark.parametrize("step", [20, -20])
def test_a_small_step_makes_no_token_that_lives_long_or_is_born_dead(
    start: Callable[..., Stepped], step: int
) -> None:
    """By the machine's clock, which was right all the while, and by the service's."""
    stepped = start()
    stepped.step_to(step)
    for ttl in (21, 60, 3600):
        answer = stepped.mint(ttl)
        assert answer.status == 200
        assert answer.json["expires_in_seconds"] == ttl
        for now in (time.time(), time.time() + step):
            assert now < exp_of(answer) + 1
            assert exp_of(answer) - now <= ttl + 1
    assert stepped.mint(10).status == 503
    assert stepped.readyz().status == 200


def test_a_large_step_is_believed_if_that_is_wished(start: Callable[..., Stepped]) -> None:
    """After so long without another one; tokens then have the new time."""
    stepped = start({"MACP_AUTH_CLOCK_ACCEPT_AFTER_SECONDS": "3"})
    stepped.step_to(86400)
    assert stepped.mint(60).status == 503
    wait_until(lambda: stepped.mint(60).status == 200, within=3 + WITHIN, what="it mints again")
    assert exp_of(stepped.mint(60)) == pytest.approx(time.time() + 86400 + 60, abs=3)
    stepped.wait_for(200)
    assert "clock step accepted" in stepped.service.log
