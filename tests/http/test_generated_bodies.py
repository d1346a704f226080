"""Whatever the body: no 5xx, JSON always, and no token that the runtime can't read."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.asgi import InProcess
from tests.support.bodies import bodies, content_types
from tests.support.runtime import claims_at_runtime
from tests.support.verifiers import verify_minted
from tests.support.wire import Answer


@pytest.fixture(scope="module")
def service() -> Iterator[InProcess]:
    with InProcess({"MACP_AUTH_SIGNING_ALG": "ES256"}) as running:
        yield running


def assert_contract(service: InProcess, body: bytes, content_type: str) -> int:
    """Ask with ``body``, hold the answer against the contract, and return its status."""
    asked_at = time.time()
    answer = service.post(body, content_type)
    assert answer.headers["content-type"] == "application/json"
    if answer.status != 200:
        assert answer.status in {400, 413, 415}, answer.body
        assert set(answer.json) == {"error"}
        return answer.status
    minted = answer.json
    assert set(minted) == {"token", "sender", "expires_in_seconds"}
    assert len(minted["token"]) <= 8192
    jwks = service.request("GET", "/.well-known/jwks.json").json
    claims = verify_minted(minted["token"], jwks, asked_at)
    assert claims_at_runtime(minted["token"]) == claims
    assert set(claims) == {"macp_scopes", "sub", "iss", "aud", "iat", "exp"}
    assert claims["sub"] == minted["sender"]
    assert claims["exp"] - claims["iat"] == minted["expires_in_seconds"]
    assert 1 <= minted["expires_in_seconds"] <= 3600
    return answer.status


@pytest.mark.timeout(600)
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=bodies, content_type=content_types)
def test_generated_bodies(service: InProcess, body: bytes, content_type: str) -> None:
    assert_contract(service, body, content_type)


def test_a_slow_machine_is_no_fault(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of one second may be over before it is looked at. That is no fault of the service."""
    post = service.post

    def slow_post(body: bytes, content_type: str) -> Answer:
        answer = post(body, content_type)
        time.sleep(1)
        return answer

    monkeypatch.setattr(service, "post", slow_post)
    assert assert_contract(service, b'{"sender":"a","ttl_seconds":1}', "application/json") == 200


def test_the_generator_reaches_both_outcomes(service: InProcess) -> None:
    """The property above says little if nothing is ever minted, or nothing refused."""
    seen: set[int] = set()

    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(body=bodies, content_type=content_types)
    def collect(body: bytes, content_type: str) -> None:
        seen.add(assert_contract(service, body, content_type))

    collect()
    assert {200, 400, 415} <= seen
