"""When each key is published, signs, and leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.keys import Algorithm, ECPublicJWK, KeyVersion, RSAPublicJWK
from macp_auth.domain.rotation import KeyStatus, Schedule, State, Timing, lifetimes, schedule

TIMING = Timing(publish_lead=100, retire_lag=50)
T = 1_800_000_000.0
PENDING, ACTIVE, RETIRED = State.PRE_ACTIVATION, State.ACTIVE, State.DEACTIVATED


def key(kid: str, made: float | None = None, **more: Any) -> KeyVersion:
    """A version made ``made`` seconds after T."""
    public = ECPublicJWK(crv="P-256", x="x" * 43, y="y" * 43)
    defaults: dict[str, Any] = {"algorithm": Algorithm.ES256, "public_jwk": public, "can_sign": True}
    times: dict[str, Any] = {name: T + more.pop(name) for name in ("not_before", "not_after") if name in more}
    created_at = None if made is None else T + made
    return KeyVersion(kid=kid, created_at=created_at, **{**defaults, **times, **more})


def at(seconds: float, *versions: KeyVersion) -> Schedule:
    return schedule(versions, TIMING, T + seconds)


def states(due: Schedule) -> dict[str, State]:
    return {status.version.kid: status.state for status in due.keys}


def of(kid: str, due: Schedule) -> KeyStatus:
    (status,) = (status for status in due.keys if status.version.kid == kid)
    return status


def times(status: KeyStatus) -> tuple[float | None, float | None]:
    """Its ``since`` and ``next_change``, in seconds after T."""
    since = None if status.since is None else status.since - T
    return since, None if status.next_change is None else status.next_change - T


@pytest.mark.parametrize("seconds", [-5, 0, 99, 100, 1e6])
def test_a_first_key_signs_at_once(seconds: float) -> None:
    """Also when its clock is ahead of ours, and for ever."""
    due = at(seconds, key("a", 0))
    assert states(due) == {"a": ACTIVE}
    assert times(of("a", due)) == (100 if seconds >= 100 else 0, None)
    assert of("a", due).why == "signs until it is replaced"
    assert due.next_change is None


BY_CREATION = (key("old", 0), key("new", 1000))
BY_ITS_OWN_TIMES = (key("old", not_after=1150), key("new", not_before=1100))


@pytest.mark.parametrize("versions", [BY_CREATION, BY_ITS_OWN_TIMES], ids=["created_at", "nbf and exp"])
@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1000, {"old": ACTIVE, "new": PENDING}),
        (1099.999, {"old": ACTIVE, "new": PENDING}),
        (1100, {"old": RETIRED, "new": ACTIVE}),
        (1149.999, {"old": RETIRED, "new": ACTIVE}),
        (1150, {"new": ACTIVE}),
        (9999, {"new": ACTIVE}),
    ],
)
def test_rotation(versions: Sequence[KeyVersion], seconds: float, expected: dict[str, State]) -> None:
    """The new one signs a lead after it was made, and the old one leaves a lag after that."""
    assert states(at(seconds, *versions)) == expected
    assert states(at(seconds, *reversed(versions))) == expected


def test_times_of_a_rotation() -> None:
    """Every state says since when, until when, and what comes then."""
    before, after = at(1050, *BY_CREATION), at(1120, *BY_CREATION)
    assert times(of("old", before)) == (100, 1100)
    assert of("old", before).why == "stops signing"
    assert times(of("new", before)) == (1000, 1100)
    assert of("new", before).why == "starts signing"
    assert before.next_change == T + 1100
    assert times(of("old", after)) == (1100, 1150)
    assert of("old", after).why == "leaves the JWKS"
    assert times(of("new", after)) == (1100, None)
    assert after.next_change == T + 1150


def test_nbf_counts_more_than_the_time_of_creation() -> None:
    """Sooner or later than the lead would say."""
    versions = key("old", 0), key("new", 1000, not_before=1200)
    assert at(1199, *versions).signing.kid == "old"
    assert at(1200, *versions).signing.kid == "new"


def test_exp_keeps_a_replaced_key() -> None:
    """Longer than the lag, if that is what it says."""
    versions = key("old", 0, not_after=2000), key("new", 1000)
    assert states(at(1999, *versions)) == {"old": RETIRED, "new": ACTIVE}
    assert states(at(2000, *versions)) == {"new": ACTIVE}


@pytest.mark.parametrize(
    ("seconds", "remaining", "signing"),
    [
        (1050, [key("b", 1000)], "b"),  # still in its lead
        (1050, [key("b", 1000), key("c", 1040)], "b"),  # the one published for longest
        (1050, [key("b", 1000, not_before=9000), key("c", 1040)], "b"),  # whatever their times
        (1120, [key("a", 0), key("c", 1110)], "a"),  # its predecessor, which verifiers have
        (1120, [key("a", 0, not_after=1150), key("c", 1110)], "a"),  # also one that retires
        (1120, [key("a", 0, not_after=1150)], "a"),
        (1120, [key("a", 0, not_after=1100), key("b", 0, not_after=1110)], "b"),  # the longest-lived of those
    ],
)
def test_when_the_signing_key_is_withdrawn(seconds: float, remaining: list[KeyVersion], signing: str) -> None:
    """Another one signs at once."""
    due = at(seconds, *remaining)
    assert due.signing.kid == signing
    assert of(signing, due).state is ACTIVE


def test_another_rotation_does_not_displace_a_first_key() -> None:
    """One made in the same second, or with an earlier time, waits: verifiers do not have it."""
    for second in (key("b", 0), key("b", 0, not_before=100), key("b", 1, not_before=50)):
        assert states(at(10, key("a", 0), second)) == {"a": ACTIVE, "b": PENDING}


def test_algorithms_may_differ() -> None:
    """A migration is a rotation."""
    rsa = key("rsa", 0, algorithm=Algorithm.RS256, public_jwk=RSAPublicJWK(n="n" * 342, e="AQAB"))
    assert at(1099, rsa, key("ec", 1000)).signing.algorithm is Algorithm.RS256
    assert at(1100, rsa, key("ec", 1000)).signing.algorithm is Algorithm.ES256


def test_keys_that_only_verify() -> None:
    """They stay until they are removed or expire, with any other times, and never sign."""
    versions = (
        key("seen", 0, can_sign=False),
        key("soon", can_sign=False, not_before=500),
        key("ends", can_sign=False, not_after=20),
        key("signs", 0),
    )
    due = at(10, *versions)
    assert states(due) == {"seen": RETIRED, "soon": RETIRED, "ends": RETIRED, "signs": ACTIVE}
    assert times(of("seen", due)) == (None, None)
    assert of("seen", due).why == "stays until it is removed"
    assert times(of("ends", due)) == (None, 20)
    assert list(states(at(20, *versions))) == ["seen", "soon", "signs"]


def test_no_times_at_all() -> None:
    """The first in the backend's order signs, and nothing ever changes."""
    due = at(0, key("a"), key("b"))
    assert states(due) == {"a": ACTIVE, "b": RETIRED}
    assert due.next_change is None
    assert times(of("a", due)) == times(of("b", due)) == (None, None)


def test_a_key_without_times_is_older_than_one_with() -> None:
    """Adding the first key with a time to a file without is a rotation, too."""
    assert states(at(10, key("timed", 0), key("bare"))) == {"timed": PENDING, "bare": ACTIVE}
    assert states(at(100, key("timed", 0), key("bare"))) == {"timed": ACTIVE, "bare": RETIRED}


def test_equal_times_follow_the_backend_s_order() -> None:
    """Before and after their time."""
    for seconds in (0, 99, 100, 500):
        assert at(seconds, key("a", 0), key("b", 0)).signing.kid == "a"


def test_published_keys_keep_the_backend_s_order() -> None:
    versions = key("c", 2000), key("a", 0), key("b", 1000)
    assert list(states(at(1100, *versions))) == ["c", "a", "b"]


@pytest.mark.parametrize("seconds", [-1e6, 0, 60, 110, 1e3, 1e6])
@pytest.mark.parametrize("expires", [0, 10, 120])
def test_never_no_keys(seconds: float, expires: float) -> None:
    """Long past their time, or long before it, one signs and is published."""
    due = at(seconds, key("a", 0, not_after=expires), key("b", 5, not_before=500, not_after=expires))
    assert due.signing in {status.version for status in due.keys}
    assert sum(status.state is ACTIVE for status in due.keys) == 1


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ([], "no key version that can sign"),
        ([key("a", can_sign=False)], "no key version that can sign"),
        ([key("a"), key("a", 5)], "same kid"),
        ([key("a"), key("a", can_sign=False)], "same kid"),
    ],
)
def test_unusable_sets(versions: list[KeyVersion], message: str) -> None:
    with pytest.raises(SignerMisconfigured, match=message):
        at(0, *versions)


def test_a_late_rotation_keeps_the_old_key_for_its_tokens() -> None:
    """``macp-auth keys rotate`` refuses this one; a file written by hand, or another tool, may hold it."""
    old, new = key("old", 0, not_after=1000), key("new", 1101)
    assert at(1100, old).signing.kid == "old"
    assert states(at(1101, old, new)) == {"old": ACTIVE, "new": PENDING}
    assert states(at(1201, old, new)) == {"old": RETIRED, "new": ACTIVE}
    assert states(at(1251, old, new)) == {"new": ACTIVE}


def test_an_expiry_without_other_times_hands_over() -> None:
    """Of keys with the same time to sign, the one that lives longer goes on, a lag before the other's end."""
    versions = key("a", not_after=1000), key("b", not_after=2000)
    assert states(at(949, *versions)) == {"a": ACTIVE, "b": RETIRED}
    assert states(at(950, *versions)) == {"a": RETIRED, "b": ACTIVE}
    assert states(at(1000, *versions)) == {"b": ACTIVE}


def test_a_key_that_left_does_not_come_back_to_sign() -> None:
    """Not even when the one that replaced it is past its time."""
    versions = key("old", 0), key("new", 1000, not_after=5000)
    assert states(at(4000, *versions)) == {"new": ACTIVE}
    assert at(4950, *versions).signing.kid == "new"


@pytest.mark.parametrize(
    ("seconds", "versions", "expected"),
    [
        (1120, (key("old"), key("new", 1000)), {"old": (None, 1100, 1150), "new": (1100, None, None)}),
        (1050, (key("new", 1000),), {"new": (1000, None, None)}),
        (1050, (key("old", 0), key("new", 1000)), {"old": (100, 1100, 1150), "new": (1100, None, None)}),
        (130, (key("late", 0, not_after=140),), {"late": (100, None, None)}),
        (
            1050,
            (key("public", 0, can_sign=False), key("a", 0)),
            {"public": (None, None, None), "a": (100, None, None)},
        ),
    ],
    ids=["unknown-start", "sooner-than-planned", "in-its-lead", "longer-than-planned", "never"],
)
def test_the_times_of_a_key(seconds: float, versions: Sequence[KeyVersion], expected: dict[str, Any]) -> None:
    """When it starts signing, stops, and leaves, in seconds after T: as it is, if that is not as planned."""
    found = {
        life.status.version.kid: tuple(
            None if time is None else time - T for time in (life.signs_from, life.signs_until, life.leaves)
        )
        for life in lifetimes(versions, TIMING, T + seconds)
    }
    assert found == expected
