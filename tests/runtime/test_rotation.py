"""Keys change while agents call the real runtime."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import jwt
import pytest

from macp_auth.domain.policy import RotationPolicy, Verifier
from tests.runtime.calls import Calls, ClientCalls
from tools.support.bounded import HANG_SECONDS
from tools.support.macp_runtime import MacpRuntime, verifying
from tools.support.openbao import OpenBao
from tools.support.service import Service, wait_until
from tools.support.vault_environment import SHORT_ROTATION, with_token

pytestmark = pytest.mark.slow  # services of their own

KEY = "agents"
CACHE_TTL = 1
# So long that a token outlives the bound below, even where it is late by a slow fetch.
MAX_TTL = 60
ENVIRONMENT = SHORT_ROTATION | {
    "MACP_AUTH_MAX_TTL_SECONDS": str(MAX_TTL),
    "MACP_AUTH_DEFAULT_TTL_SECONDS": str(MAX_TTL),
}


def revocation_bound() -> int:
    """Of these settings, in seconds, with a slow fetch."""
    verifier = Verifier(name="this runtime", cache_ttl=CACHE_TTL)
    policy = RotationPolicy(max_ttl=MAX_TTL, refresh=1, max_age=0, clock_skew=0, verifier=verifier)
    bound = policy.revocation_bound(verifier)
    assert bound is not None
    return bound.seconds + verifier.fetch_timeout


def version(kid: str) -> int:
    return int(kid.split("-v", 1)[1].split("-", 1)[0])


def test_three_rotations_a_restart_and_a_revocation(tmp_path: Path) -> None:
    """No call is refused but those with a revoked key, and these soon."""
    with ExitStack() as stack:
        openbao = stack.enter_context(OpenBao(tmp_path))
        openbao.create_key(KEY, "ecdsa-p256")
        env = with_token(openbao, KEY, **ENVIRONMENT)
        service = stack.enter_context(Service(tmp_path, env, "--workers", "2"))
        settings = verifying(f"{service.url}/.well-known/jwks.json", cache_ttl=CACHE_TTL)
        runtime = stack.enter_context(MacpRuntime(tmp_path, settings))
        calls = stack.enter_context(Calls(service, runtime))
        calls.wait_for(10)
        for number in (2, 3, 4):
            openbao.rotate(KEY)
            wait_until(
                lambda: version(calls.minted[-1].kid) == number,  # noqa: B023
                within=HANG_SECONDS,
                what=f"version {number} signs",
            )
        calls.wait_for(100)
        stopped = time.time()
        service.__exit__()
        calls.wait_for(100)
        service.start_again()
        restarted = time.time()
        calls.wait_for(100)
        openbao.set_min_version(KEY, 4)
        revoked = time.time()
        wait_until(
            lambda: calls.made[-1].began > revoked + revocation_bound(),
            within=HANG_SECONDS,
            what="the bound has passed",
        )
        calls.wait_for(100)
    refused = [call for call in calls.made if call.answer != "accepted" and call.live]
    assert {call.answer for call in refused} == {"status UNAUTHENTICATED", "Ack UNAUTHENTICATED"}
    assert [call for call in refused if version(call.token.kid) == 4 or call.began < restarted] == []
    of_revoked = [call for call in calls.made if version(call.token.kid) < 4 and call.began > revoked]
    accepted = [call.began - revoked for call in of_revoked if call.answer == "accepted"]
    assert max(accepted, default=0) < revocation_bound()
    assert max(call.began for call in of_revoked if call.live) - revoked > revocation_bound()
    assert [began for began in calls.failed_mints if not stopped - 1 < began < restarted] == []
    assert {version(token.kid) for token in calls.minted} == {1, 2, 3, 4}


def test_the_client_through_a_rotation_and_a_revocation(tmp_path: Path) -> None:
    """No call fails: the only refusal of an agent is that of its revoked token, and one mint ends it."""
    with ExitStack() as stack:
        openbao = stack.enter_context(OpenBao(tmp_path))
        openbao.create_key(KEY, "ecdsa-p256")
        lives = {"MACP_AUTH_MAX_TTL_SECONDS": "900", "MACP_AUTH_DEFAULT_TTL_SECONDS": "900"}
        service = stack.enter_context(Service(tmp_path, with_token(openbao, KEY, **SHORT_ROTATION | lives)))
        settings = verifying(f"{service.url}/.well-known/jwks.json", cache_ttl=CACHE_TTL)
        runtime = stack.enter_context(MacpRuntime(tmp_path, settings))
        agents = {name: stack.enter_context(ClientCalls(service, runtime, name)) for name in ("a", "b", "c")}
        for agent in agents.values():
            agent.wait_for(10)
        openbao.rotate(KEY)
        wait_until(lambda: version(_signing_kid(service)) == 2, within=HANG_SECONDS, what="version 2 signs")
        for agent in agents.values():
            agent.wait_for(20)
            assert version(agent.kid) == 1, "its token lives on"
        openbao.set_min_version(KEY, 2)
        for agent in agents.values():
            wait_until(lambda: version(agent.kid) == 2, within=HANG_SECONDS, what="a new token")  # noqa: B023
            agent.wait_for(20)
    refused = ("status UNAUTHENTICATED", "accepted")
    for agent in agents.values():
        assert [answers for answers in agent.answers if answers != ("accepted",)] == [refused]
    senders = [line.get("sender") for line in service.audit_lines]
    assert {name: senders.count(name) for name in agents} == dict.fromkeys(agents, 2)


def _signing_kid(service: Service) -> str:
    return str(jwt.get_unverified_header(service.mint(sender="probe")["token"])["kid"])
