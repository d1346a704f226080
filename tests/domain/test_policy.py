"""The sums: the numbers that are promised, and what contradicts them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from macp_auth.domain.policy import MACP_RUNTIME, VERIFIERS, RotationPolicy, Verifier
from macp_auth.domain.rotation import Timing

POLICY = RotationPolicy(max_ttl=3600, refresh=30, max_age=60, clock_skew=30, verifier=MACP_RUNTIME)


def policy(**changes: Any) -> RotationPolicy:
    return msgspec.structs.replace(POLICY, **changes)


def test_the_runtimes_sums_say_what_they_are_made_of() -> None:
    """Every term by name, so that an operator sees which one to change."""
    assert str(POLICY.needed_lead(MACP_RUNTIME)) == (
        "30 (replica refresh) + 60 (max-age) + 300 (cache TTL) + 3600 (stale grace)"
        " + 5 (fetch timeout) + 30 (clock skew) = 4025 s"
    )
    assert str(POLICY.needed_lag(MACP_RUNTIME)) == (
        "3600 (longest token TTL) + 60 (verifier leeway) + 30 (clock skew) + 30 (replica refresh) = 3720 s"
    )


@pytest.mark.parametrize(
    ("name", "lead", "lag"),
    [
        ("macp-runtime", 4025, 3720),
        ("jose", 155, 3660),
        ("pyjwt", 180, 3660),
        ("envoy", 725, 3720),
        ("istio", 606125, 3720),
        ("go-oidc", 150, 3660),
    ],
)
def test_what_each_known_verifier_needs(name: str, lead: int, lag: int) -> None:
    assert POLICY.needed_lead(VERIFIERS[name]).seconds == lead
    assert POLICY.needed_lag(VERIFIERS[name]).seconds == lag


@pytest.mark.parametrize("name", VERIFIERS)
def test_revocation_bounds(name: str) -> None:
    """No bound for a verifier that never fetches again; if blocked, none for one with an unlimited grace."""
    verifier = VERIFIERS[name]
    healthy, blocked = POLICY.revocation_bound(verifier), POLICY.blocked_revocation_bound(verifier)
    assert (healthy is None) == (verifier.cache_ttl is None)
    assert (blocked is None) == (verifier.cache_ttl is None or verifier.stale_grace is None)
    if healthy and blocked:
        assert blocked.seconds - healthy.seconds == verifier.stale_grace


@pytest.mark.parametrize(
    ("changes", "lead", "lag"),
    [
        ({}, 4500, 3720),
        ({"publish_lead": 5000}, 5000, 3720),
        ({"retire_lag": 4000}, 4500, 4000),
        ({"refresh": 505}, 4500, 4195),  # a lead that is a whole number of quarters stays
        ({"refresh": 506}, 5400, 4196),
    ],
)
def test_active_timing(changes: dict[str, int], lead: int, lag: int) -> None:
    """Unset, the lead is rounded up and the lag is exact; what is set is taken as it is."""
    assert policy(**changes).timing == Timing(publish_lead=lead, retire_lag=lag)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, []),
        ({"publish_lead": 4025, "retire_lag": 3720}, []),
        ({"publish_lead": 4024}, ["publish_lead"]),
        ({"retire_lag": 3719}, ["retire_lag"]),
        ({"publish_lead": 0, "retire_lag": 0}, ["publish_lead", "retire_lag"]),
        ({"publish_lead": 4025, "max_age": 61}, ["publish_lead"]),
        ({"retire_lag": 3720, "max_ttl": 3601}, ["retire_lag"]),
        ({"publish_lead": 155, "verifier": VERIFIERS["jose"]}, []),
    ],
)
def test_contradictions(changes: dict[str, Any], names: list[str]) -> None:
    """One second less than the sum is a contradiction, whichever side was changed."""
    assert [name for name, _ in policy(**changes).contradictions()] == names


def test_a_verifier_that_caches_nothing() -> None:
    """Only the service's own delays are left."""
    verifier = Verifier(name="none", cache_ttl=0, fetch_timeout=0, leeway=0)
    assert POLICY.needed_lead(verifier).seconds == 30 + 60 + 30
    assert POLICY.needed_lag(verifier).seconds == 3600 + 30 + 30
