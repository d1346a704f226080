"""What may be done to keys that are in use, and what is refused and why."""

from __future__ import annotations

from typing import Any

import pytest

from macp_auth.domain.key_changes import UnsafeChange, plan_revocation, plan_rotation
from macp_auth.domain.keys import Algorithm, ECPublicJWK, KeyVersion
from macp_auth.domain.rotation import Timing, schedule

TIMING = Timing(publish_lead=100, retire_lag=50)
NOW = 1_000_000.0
JWK = ECPublicJWK(crv="P-256", x="x", y="y")


def version(kid: str, *, can_sign: bool = True, **times: Any) -> KeyVersion:
    return KeyVersion(kid=kid, algorithm=Algorithm.ES256, public_jwk=JWK, can_sign=can_sign, **times)


def test_rotation_takes_the_earliest_safe_time() -> None:
    """The new key waits for the lead, and the old one leaves a lag after it stops."""
    rotation = plan_rotation([version("a")], TIMING, NOW, None)
    assert rotation.retiring.kid == "a"
    assert (rotation.signs_from, rotation.retiring_leaves) == (NOW + 100, NOW + 150)


@pytest.mark.parametrize("now", [NOW, NOW + 0.001, NOW + 0.999])
def test_times_are_whole_and_never_too_early(now: float) -> None:
    """A file holds whole seconds; rounding never shortens the lead or the lag."""
    rotation = plan_rotation([version("a")], TIMING, now, None)
    assert rotation.signs_from >= now + TIMING.publish_lead
    assert rotation.retiring_leaves - rotation.signs_from >= TIMING.retire_lag


def test_wanted_time() -> None:
    """Later than the lead is as wanted; exactly the lead is late enough; sooner names the rule."""
    assert plan_rotation([version("a")], TIMING, NOW, NOW + 500).signs_from == NOW + 500
    assert plan_rotation([version("a")], TIMING, NOW, NOW + 100).signs_from == NOW + 100
    for too_soon in (NOW + 99, NOW, NOW - 1000):
        with pytest.raises(UnsafeChange, match="publish lead"):
            plan_rotation([version("a")], TIMING, NOW, too_soon)


def test_one_rotation_at_a_time() -> None:
    pending = [version("a"), version("b", not_before=NOW + 10)]
    with pytest.raises(UnsafeChange, match="'b' has yet to sign, in 10 s"):
        plan_rotation(pending, TIMING, NOW, None)


def test_first_key_within_its_own_lead_is_no_pending_rotation() -> None:
    assert plan_rotation([version("a", created_at=NOW - 1)], TIMING, NOW, None).retiring.kid == "a"


def test_expiry_of_the_signing_key() -> None:
    """One that is late enough is kept; one that would cut live tokens is refused."""
    late = plan_rotation([version("a", not_after=NOW + 900)], TIMING, NOW, None)
    assert late.retiring_leaves == NOW + 900
    with pytest.raises(UnsafeChange, match="retire lag"):
        plan_rotation([version("a", not_after=NOW + 149)], TIMING, NOW, None)


def test_what_has_left_is_not_kept() -> None:
    old = [version("old", not_after=NOW - 1), version("a"), version("seen", can_sign=False)]
    assert [gone.kid for gone in plan_rotation(old, TIMING, NOW, None).gone] == ["old"]


def test_planned_rotation_keeps_the_rules_at_every_second() -> None:
    """Followed second by second, the plan never signs early, never leaves a gap, never drops a live key."""
    before = [version("a")]
    rotation = plan_rotation(before, TIMING, NOW, None)
    after = [
        version("a", not_after=rotation.retiring_leaves),
        version("b", created_at=NOW, not_before=rotation.signs_from),
    ]
    for second in range(300):
        now = NOW + second
        active = schedule(after, TIMING, now)
        published = {key.version.kid for key in active.keys}
        assert active.signing.kid == ("a" if now < rotation.signs_from else "b")
        assert "b" in published
        assert ("a" in published) == (now < rotation.signs_from + TIMING.retire_lag)


def test_revocation_makes_another_sign_at_once() -> None:
    """The one before while verifiers have it, else even one that is still in its lead."""
    active, pending = version("active", created_at=NOW - 500), version("pending", created_at=NOW - 1)
    retiring, gone = version("retiring", not_after=NOW + 20), version("gone", not_after=NOW - 20)
    for before, signing in ([retiring], "retiring"), ([gone], "pending"), ([], "pending"):
        revocation = plan_revocation([*before, active, pending], "active", TIMING, NOW)
        assert revocation.schedule.signing.kid == signing
        assert list(revocation.gone) == [version for version in before if version is gone]
    assert plan_revocation([active, pending], "pending", TIMING, NOW).schedule.signing.kid == "active"


def test_revocation_falls_back_on_a_key_that_had_left() -> None:
    """Better than none: verifiers learn of it as they would of a new one."""
    versions = [version("gone", not_after=NOW - 20), version("active", created_at=NOW - 500)]
    revocation = plan_revocation(versions, "active", TIMING, NOW)
    assert (revocation.schedule.signing.kid, revocation.carries_on, revocation.gone) == ("gone", "gone", ())


@pytest.mark.parametrize("now", [NOW, NOW + 120])
def test_key_that_was_to_be_replaced_carries_on(now: float) -> None:
    """Its expiry goes with the key that was to take over, before it did or after; then it can be rotated."""
    versions = [version("a", not_after=NOW + 150), version("b", created_at=NOW, not_before=NOW + 100)]
    revocation = plan_revocation(versions, "b", TIMING, now)
    assert revocation.carries_on == "a"
    (key,) = revocation.schedule.keys
    assert (key.version.kid, key.next_change) == ("a", None)
    assert plan_rotation([key.version], TIMING, now, None).retiring.kid == "a"


def test_key_with_a_successor_keeps_its_expiry() -> None:
    versions = [version("a", not_after=NOW + 150), version("b", not_before=NOW + 100), version("c")]
    assert plan_revocation(versions, "c", TIMING, NOW).carries_on is None


@pytest.mark.parametrize(
    ("kid", "message"),
    [("b", "there is no key 'b'; there are: 'a', 'seen'"), ("a", "a key that can sign must remain")],
)
def test_refused_revocations(kid: str, message: str) -> None:
    with pytest.raises(UnsafeChange, match=message):
        plan_revocation([version("a"), version("seen", can_sign=False)], kid, TIMING, NOW)
