"""Safe changes to keys in use: rotation and revocation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from macp_auth.domain.errors import MACPAuthError
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.rotation import Schedule, State, Timing, schedule


class UnsafeChange(MACPAuthError):
    """The change would break a rule; the text names the rule and a safe alternative."""


class Rotation(Struct, frozen=True):
    """A safe rotation. Times in whole seconds since the epoch, as in a key file."""

    retiring: KeyVersion
    """The version that signs now."""
    signs_from: int
    """When the new version starts signing."""
    retiring_leaves: int
    """When the old version leaves the JWKS."""
    gone: tuple[KeyVersion, ...]
    """Versions that have already left the JWKS and need not be kept."""


class Revocation(Struct, frozen=True):
    """The effect of removing a key."""

    schedule: Schedule
    carries_on: str | None
    """The kid of the key that signs from now on, if its expiry must be removed because nothing replaces
    it."""
    gone: tuple[KeyVersion, ...]
    """Versions that have already left the JWKS: they must not sign again."""


def plan_rotation(versions: Sequence[KeyVersion], timing: Timing, now: float, at: float | None) -> Rotation:
    """Return how a new version, created ``now``, takes over; ``at`` is the requested time.

    Raises:
        UnsafeChange: another rotation is in progress, ``at`` is before verifiers can have the new key,
            or the signing key must stop before the new one may start.
    """
    current = schedule(versions, timing, now)
    for key in current.keys:
        if key.state is State.PRE_ACTIVATION:
            wait = _in(key.next_change, now)
            raise UnsafeChange(f"one rotation at a time: {key.version.kid!r} has yet to sign, {wait}")
    earliest = now + timing.publish_lead
    if at is not None and at < earliest:
        raise UnsafeChange(
            f"publish lead: verifiers need {timing.publish_lead} s to learn of a key before it signs; "
            f"the earliest time is {_in(earliest, now)}"
        )
    signs_from = math.ceil(earliest if at is None else at)
    retiring = current.signing
    leaves = signs_from + timing.retire_lag
    if retiring.not_after is not None:
        if retiring.not_after < leaves:
            raise UnsafeChange(
                f"retire lag: {retiring.kid!r} leaves the JWKS {_in(retiring.not_after, now)}, and "
                f"its last token dies {_in(leaves, now)}; take the exp out of it, and rotate again"
            )
        leaves = math.ceil(retiring.not_after)
    return Rotation(retiring, signs_from, leaves, _gone(versions, current))


def plan_revocation(versions: Sequence[KeyVersion], kid: str, timing: Timing, now: float) -> Revocation:
    """Return the effect of removing ``kid``.

    Raises:
        UnsafeChange: there is no such version, or no other can sign.
    """
    others = [version for version in versions if version.kid != kid]
    if len(others) == len(versions):
        raise UnsafeChange(f"there is no key {kid!r}; there are: {', '.join(repr(v.kid) for v in versions)}")
    if not any(version.can_sign for version in others):
        raise UnsafeChange(
            f"a key that can sign must remain: {kid!r} is the only one; rotate first, then revoke it"
        )
    gone = _gone(others, schedule(versions, timing, now))
    remaining = [version for version in others if version not in gone]
    if not any(version.can_sign for version in remaining):
        remaining, gone = others, ()
    planned = schedule(remaining, timing, now)
    signing = planned.signing
    is_relieved = any(key.state is State.PRE_ACTIVATION for key in planned.keys)
    if signing.not_after is None or is_relieved:
        return Revocation(planned, carries_on=None, gone=gone)
    # It was to be replaced by the revoked key; now nothing replaces it.
    lasting = [replace(version, not_after=None) if version is signing else version for version in remaining]
    return Revocation(schedule(lasting, timing, now), carries_on=signing.kid, gone=gone)


def _gone(versions: Sequence[KeyVersion], current: Schedule) -> tuple[KeyVersion, ...]:
    published = {key.version.kid for key in current.keys}
    return tuple(version for version in versions if version.kid not in published)


def _in(when: float | None, now: float) -> str:
    if when is None:
        return "at no known time"
    return f"in {when - now:.0f} s" if when >= now else f"{now - when:.0f} s ago"
