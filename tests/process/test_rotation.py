"""Rotation in a running service, on a shortened time scale."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.support import jwks
from tools.support.service import Service, wait_until
from tools.support.verifiers import verify_with_pyjwt

pytestmark = pytest.mark.slow  # under load for seconds

LEAD, MAX_TTL, TAKEN_UP = 8, 3, 2
LAG = MAX_TTL + 1
LATE = 3  # for a loaded machine
POLICY = {
    "MACP_AUTH_SIGNER": "jwk-file",
    "MACP_AUTH_KEY_REFRESH_SECONDS": "1",
    "MACP_AUTH_JWKS_MAX_AGE_SECONDS": "0",
    "MACP_AUTH_VERIFIER_CACHE_TTL_SECONDS": "1",
    "MACP_AUTH_VERIFIER_STALE_GRACE_SECONDS": "0",
    "MACP_AUTH_VERIFIER_LEEWAY_SECONDS": "0",
    "MACP_AUTH_CLOCK_SKEW_SECONDS": "0",
    "MACP_AUTH_MAX_TTL_SECONDS": str(MAX_TTL),
    "MACP_AUTH_KEY_PUBLISH_LEAD_SECONDS": str(LEAD),
}
BROKEN = "cannot read keys; keeping the last good ones"
OLD = {**jwks.ec(), "kid": "old"}


def new_key() -> dict[str, Any]:
    """Of another algorithm, and made just now."""
    return {**jwks.rsa(), "kid": "new", "iat": time.time()}


class Rotating:
    """A service, its file of keys, and a verifier that follows it."""

    def __init__(self, start_service: Callable[..., Service], directory: Path, workers: int = 1) -> None:
        self._path = directory / "keys.json"
        self.write(OLD)
        env = {**POLICY, "MACP_AUTH_SIGNING_KEYS_FILE": str(self._path)}
        self.service = start_service(env, "--workers", str(workers))
        self.alive: list[tuple[str, float]] = []
        self.verified = 0

    def write(self, *keys: dict[str, Any], text: str | None = None) -> None:
        """Replace the file at one stroke."""
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps({"keys": list(keys)}) if text is None else text)
        new.chmod(0o600)
        new.replace(self._path)

    def step(self) -> tuple[str, list[str]]:
        """Mint, verify all that is alive; return which key signed, and what is published."""
        token = self.service.mint(sender="agent://risk", ttl_seconds=MAX_TTL)["token"]
        self.alive.append((token, jwt.decode(token, options={"verify_signature": False})["exp"]))
        document = self.service.jwks()
        # A token may expire between our reading of the clock and the verifier's.
        self.alive = [(token, exp) for token, exp in self.alive if time.time() < exp - 0.2]
        for each, exp in self.alive:
            try:
                verify_with_pyjwt(each, document)
            except jwt.ExpiredSignatureError:
                assert time.time() >= exp
            self.verified += 1
        return jwt.get_unverified_header(token)["kid"], [key["kid"] for key in document["keys"]]

    def until(self, signing: str, published: list[str], *, within: float, before: str) -> float:
        """Step until this is so; all the while, ``before`` signs. Return when it came."""

        def reached() -> bool:
            step = self.step()
            assert step[0] in (signing, before)
            return step == (signing, published)

        wait_until(reached, within=within, what=f"{signing} signs, and {published} are published")
        return time.time()


@pytest.mark.parametrize("workers", [1, 2])
def test_rotation_loses_no_token(start_service: Callable[..., Service], tmp_path: Path, workers: int) -> None:
    """Published at once, used after the lead, gone after the lag; every token verifies all its life."""
    rotating = Rotating(start_service, tmp_path, workers)
    assert rotating.step() == ("old", ["old"])
    new = new_key()
    rotating.write(OLD, new)
    rotating.until("old", ["old", "new"], within=TAKEN_UP, before="old")
    signs = rotating.until("new", ["old", "new"], within=LEAD + LATE, before="old") - new["iat"]
    assert LEAD <= signs < LEAD + LATE
    leaves = rotating.until("new", ["new"], within=LAG + LATE, before="old") - new["iat"]
    assert LEAD + LAG <= leaves < LEAD + LAG + LATE
    assert rotating.verified > 100
    if workers == 1:
        rotating.service.__exit__()  # the last is logged after the keys are published
        states = [event["states"] for event in rotating.service.events if event["event"] == "published keys"]
        assert states == [
            {"old": "active", "new": "pre-activation"},
            {"old": "deactivated", "new": "active"},
            {"new": "active"},
        ]


def test_a_broken_file_then_a_revocation(start_service: Callable[..., Service], tmp_path: Path) -> None:
    """The one changes nothing but the log, the other takes the key out and puts the next one in."""
    rotating = Rotating(start_service, tmp_path)
    service = rotating.service
    new = new_key()
    rotating.write(OLD, new)
    rotating.until("old", ["old", "new"], within=TAKEN_UP, before="old")
    rotating.write(text='{"keys": [{"kty": "RSA", "d": "a-secret')

    def failures() -> list[dict[str, Any]]:
        assert rotating.step() == ("old", ["old", "new"])
        return [event for event in service.events if event["event"] == BROKEN]

    wait_until(lambda: len(failures()) >= 3, within=3 * TAKEN_UP, what="each reading is logged")
    assert all("MACP_AUTH_SIGNING_KEYS_FILE is not valid JSON" in event["detail"] for event in failures())
    assert time.time() < new["iat"] + LEAD, "the machine is too slow to tell"

    rotating.alive.clear()  # revoked with their key
    rotating.write(new)

    def revoked() -> bool:
        kid = jwt.get_unverified_header(service.mint()["token"])["kid"]
        return kid == "new" and [key["kid"] for key in service.jwks()["keys"]] == ["new"]

    wait_until(revoked, within=TAKEN_UP, what="new signs, inside its lead")
    assert time.time() < new["iat"] + LEAD
    assert rotating.step() == ("new", ["new"])
    assert "a-secret" not in service.log
    assert "Traceback" not in service.log
