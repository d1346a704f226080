"""With any body: no 5xx, always JSON, and no token that the runtime can't read."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tools.fuzz.bodies import bodies, content_types
from tools.fuzz.contract import assert_contract
from tools.support.asgi import InProcess
from tools.support.wire import Answer


@pytest.fixture(scope="module")
def service() -> Iterator[InProcess]:
    with InProcess({"MACP_AUTH_SIGNING_ALG": "ES256"}) as running:
        yield running


@pytest.mark.slow  # a thousand bodies, and as many signatures
@settings(max_examples=1_000, suppress_health_check=list(HealthCheck))
@given(body=bodies, content_type=content_types)
def test_generated_bodies(service: InProcess, body: bytes, content_type: str) -> None:
    assert_contract(service, body, content_type)


def test_a_slow_machine_is_no_fault(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of one second may expire before it is verified. That is not a fault of the service."""
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

    @settings(max_examples=300, database=None, suppress_health_check=list(HealthCheck))
    @given(body=bodies, content_type=content_types)
    def collect(body: bytes, content_type: str) -> None:
        seen.add(assert_contract(service, body, content_type))

    collect()
    assert {200, 400, 415} <= seen
