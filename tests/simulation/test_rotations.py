"""The simulation: with what the policy asks for nothing is lost; a second less, and it shows what is."""

from __future__ import annotations

import random
from typing import Any

import pytest

from macp_auth.domain.policy import MACP_RUNTIME, VERIFIERS, RotationPolicy, Verifier
from macp_auth.domain.rotation import Timing, schedule
from macp_auth.simulation.parts import Backend, Cache, FixedSource, Replica, Span, VerifierInstance
from macp_auth.simulation.rotations import Report, Setup, World, make_world, simulate

POLICY = RotationPolicy(max_ttl=3600, refresh=30, max_age=60, clock_skew=30, verifier=MACP_RUNTIME)
CUSTOM = Verifier(name="custom", cache_ttl=0, stale_grace=0, fetch_timeout=0)
PROFILES = [*VERIFIERS.values(), CUSTOM]
by_profile = pytest.mark.parametrize("verifier", PROFILES, ids=lambda verifier: verifier.name)


def planned(*verifiers: Verifier, lead: int = 0, lag: int = 0) -> Timing:
    """What the policy asks for, and so many seconds more."""
    return Timing(
        max(POLICY.needed_lead(verifier).seconds for verifier in verifiers) + lead,
        max(POLICY.needed_lag(verifier).seconds for verifier in verifiers) + lag,
    )


def rng(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a simulation's rng, no secret


def world(*verifiers: Verifier, timing: Timing, seed: int = 0, **changes: Any) -> World:
    setup = Setup(
        policy=POLICY, timing=timing, verifiers=verifiers, **{"population": 300, "rotations": 2, **changes}
    )
    return make_world(setup, rng(seed))


def run(*verifiers: Verifier, timing: Timing, seed: int = 0, **changes: Any) -> Report:
    return simulate(world(*verifiers, timing=timing, seed=seed, **changes), rng(seed))


def events(report: Report) -> list[str]:
    assert report.first_failure is not None
    return [f"{at:.3f} {event}" for at, event in report.first_failure.trace]


# --- what is promised --------------------------------------------------------------------------------


@by_profile
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_wrongly_rejected_with_the_planned_values(verifier: Verifier, seed: int) -> None:
    """For every kind of verifier, its own lead and lag are enough; a revocation changes nothing."""
    for revoke in (False, True):
        report = run(verifier, timing=planned(verifier), seed=seed, revoke=revoke)
        assert report.checks > 900
        assert report.wrongly_rejected == 0, events(report)


@by_profile
def test_a_lead_one_second_shorter_fails(verifier: Verifier) -> None:
    """The sum is exact: the worst case happens, once for each rotation."""
    report = run(verifier, timing=planned(verifier, lead=-1), population=0)
    assert report.wrongly_rejected == 2
    assert events(report)[-1].endswith("rejects the token: it does not have key-2")


@by_profile
def test_a_lag_one_second_shorter_fails(verifier: Verifier) -> None:
    report = run(verifier, timing=planned(verifier, lag=-1), population=0)
    assert report.wrongly_rejected == 2
    assert events(report)[-1].endswith("rejects the token: it does not have key-1")


def test_clocks_further_apart_than_planned_fail() -> None:
    """Each sum holds one clock skew, and no more."""
    assert run(MACP_RUNTIME, timing=planned(MACP_RUNTIME), population=0, clock_skew=31).wrongly_rejected > 0
    assert run(MACP_RUNTIME, timing=planned(MACP_RUNTIME), population=0, clock_skew=29).wrongly_rejected == 0


def test_a_careless_lead_fails_for_ordinary_verifiers_too() -> None:
    """Not only in the worst cases: with no lead at all, many of the random population."""
    report = run(MACP_RUNTIME, timing=Timing(0, 3720), population=1000)
    assert report.wrongly_rejected > 20


def test_mixed_verifiers_share_the_longest_lead() -> None:
    mixed = [VERIFIERS[name] for name in ("macp-runtime", "envoy", "jose")]
    report = run(*mixed, timing=planned(*mixed))
    assert (report.verifiers, report.wrongly_rejected) == (300 + 3 * 2 * 2, 0)


def test_the_story_of_a_lead_too_short() -> None:
    """Who knew what when, from the key's creation to the rejection."""
    assert events(run(MACP_RUNTIME, timing=planned(MACP_RUNTIME, lead=-1), population=0)) == [
        "0.000 the backend makes key-2",
        "29.998 an HTTP cache fetches the JWKS from replica A: key-1",
        "29.999 replica A publishes key-2",
        "89.998 the verifier (macp-runtime) fetches the JWKS from the HTTP cache: key-1",
        "94.998 the answer arrives at the verifier (macp-runtime)",
        "94.998 the verifier (macp-runtime) can't fetch from here on",
        "3994.000 replica B, its clock 30 s ahead, signs a token with key-2",
        "3994.000 the verifier (macp-runtime) rejects the token: it does not have key-2",
    ]


def test_the_story_of_a_lag_too_short() -> None:
    assert events(run(MACP_RUNTIME, timing=planned(MACP_RUNTIME, lag=-1), population=0))[-5:] == [
        "4025.000 key-2 is due to replace key-1",
        "4054.998 replica B, its clock 0 s ahead, signs a token with key-1",
        "7714.000 replica A no longer publishes key-1",
        "7714.000 the verifier (macp-runtime) fetches the JWKS from replica A: key-2",
        "7714.997 the verifier (macp-runtime) rejects the token: it does not have key-1",
    ]


# --- revocation ----------------------------------------------------------------------------------------


@by_profile
@pytest.mark.parametrize("slow", [False, True], ids=["prompt fetches", "slow fetches"])
def test_revocation_bounds_hold_and_are_reached(verifier: Verifier, slow: bool) -> None:  # noqa: FBT001
    """A revoked key is accepted until just before the bound, plus the time that a slow fetch takes."""
    report = run(verifier, timing=planned(verifier), revoke=True, slow_fetches=slow)
    late = report.after_revocation[verifier.name]
    fetch_time = verifier.fetch_timeout if slow else 0
    if (bound := POLICY.revocation_bound(verifier)) is None:
        assert late.latest is not None
        assert late.latest > 3600  # for ever: until the simulation ends
        return
    assert late.latest is not None
    assert bound.seconds - 1 < late.latest <= bound.seconds + fetch_time
    blocked = POLICY.blocked_revocation_bound(verifier)
    if blocked is None:
        assert late.latest_blocked is not None
        assert late.latest_blocked > bound.seconds + 3599  # for ever
    elif verifier.stale_grace:
        assert late.latest_blocked is not None
        assert blocked.seconds - 1 < late.latest_blocked <= blocked.seconds + fetch_time


def test_nothing_is_accepted_late_without_a_revocation() -> None:
    assert run(MACP_RUNTIME, timing=planned(MACP_RUNTIME)).after_revocation == {}


# --- the machinery -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_report() -> None:
    timing = planned(MACP_RUNTIME, lead=-60)
    reports = [run(MACP_RUNTIME, timing=timing, seed=seed, revoke=True) for seed in (1, 1, 2)]
    assert reports[0] == reports[1]
    assert reports[0] != reports[2]


def test_a_cut_off_verifier_is_counted_apart() -> None:
    """No lead helps a verifier without a grace that can't fetch."""
    quiet = run(VERIFIERS["jose"], timing=planned(VERIFIERS["jose"]), outages=0, outage_rate=0)
    noisy = run(VERIFIERS["jose"], timing=planned(VERIFIERS["jose"]), outages=2, outage_rate=1)
    assert (quiet.cut_off, quiet.wrongly_rejected) == (0, 0)
    assert noisy.cut_off > 0
    assert noisy.wrongly_rejected == 0


@pytest.mark.parametrize("timing", [Timing(0, 0), Timing(1, 0), Timing(4500, 100)])
def test_unsafe_timings_are_played_too(timing: Timing) -> None:
    assert run(MACP_RUNTIME, timing=timing, revoke=True).wrongly_rejected > 0


@pytest.mark.parametrize("seed", range(3))
def test_histories_leave_out_no_refresh_that_mattered(seed: int) -> None:
    """A replica's history, made by leaps, is what refreshing all the time gives."""
    made = world(MACP_RUNTIME, timing=planned(MACP_RUNTIME), seed=seed, revoke=True)
    for replica in made.replicas:
        now = replica.history[0].since
        while now < made.end:
            kids, signing = _active(made.backend, made.setup.timing, now + replica.ahead, now)
            assert (replica.at(now + 1e-6).kids, replica.at(now + 1e-6).signing) == (kids, signing)
            now += replica.interval


def _active(backend: Backend, timing: Timing, clock: float, now: float) -> tuple[frozenset[str], str]:
    due = schedule(backend.versions_at(now), timing, clock)
    return frozenset(key.version.kid for key in due.keys), due.signing.kid


class Numbered:
    """A source with a new answer to each request; counts them."""

    def __init__(self) -> None:
        self.requests: list[float] = []
        made = world(MACP_RUNTIME, timing=planned(MACP_RUNTIME))
        self.publisher = made.replicas[0]

    def answer(self, now: float) -> tuple[Replica, float]:
        self.requests.append(now)
        return self.publisher, now


def cache(source: Numbered, verifier: Verifier, **changes: Any) -> Cache:
    return Cache(
        VerifierInstance(
            profile=verifier, source=source, ahead=0, **{"first_fetch": 0, "fetch_time": 5, **changes}
        )
    )


@pytest.mark.parametrize(
    ("at", "requested"), [(0, 0), (304.9, 0), (305, 305), (609.9, 305), (610, 610), (3056, 3050)]
)
def test_a_cache_is_renewed_a_ttl_after_its_arrival(at: float, requested: float) -> None:
    held = cache(Numbered(), MACP_RUNTIME)
    held.has("key-1", at)
    assert held.requested == requested


@pytest.mark.parametrize(
    ("at", "found", "cut_off"), [(3904, True, False), (3905, False, True), (4000, True, False)]
)
def test_a_stale_set_serves_until_its_grace_ends(at: float, found: bool, cut_off: bool) -> None:  # noqa: FBT001
    held = cache(Numbered(), MACP_RUNTIME, outages=(Span(100, 4000),))
    assert (held.has("key-1", at), held.is_cut_off(at)) == (found, cut_off)


def test_an_unknown_kid_is_fetched_for_after_the_cooldown() -> None:
    """The cooldown counts from the last answer; a check meanwhile shares the answer that is on its way."""
    source = Numbered()
    held = cache(source, VERIFIERS["jose"])
    for at in (1, 4, 34.9, 35, 36, 69, 70):
        held.has("nobody's", at)
    assert source.requests == [0, 35, 70]


def test_a_fixed_source_is_as_late_as_it_says() -> None:
    publisher = Numbered().publisher
    assert FixedSource(publisher, 60).answer(100) == (publisher, 40)
