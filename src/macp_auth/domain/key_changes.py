"""What may safely be done to a set of keys that are in use: rotate, revoke."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from macp_auth.domain.errors import MACPAuthError, SignerMisconfigured
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.rotation import Schedule, State, Timing, schedule


class UnsafeChange(MACPAuthError):
    """The change would break a rule; the text names the rule, and what would be safe."""


class Rotation(Struct, frozen=True):
    """A safe rotation. Times in whole seconds since the epoch, as a key file's members hold them."""

    retiring: KeyVersion
    """The version that signs until then."""
    signs_from: int
    """When the new version starts to sign."""
    retiring_leaves: int
    """When the old one leaves the JWKS."""
    gone: tuple[KeyVersion, ...]
    """Versions that have left the JWKS already, and need not be kept."""


def plan_rotation(versions: Sequence[KeyVersion], timing: Timing, now: float, at: float | None) -> Rotation:
    """Return how a new version, made ``now``, may take over; ``at`` is when it is wanted to.

    Raises:
        UnsafeChange: another rotation is under way, ``at`` comes before verifiers can have the new
            key, or the signing key must stop before the new one may start.
    """
    current = schedule(versions, timing, now)
    for key in current.keys:
        if key.state is State.PRE_ACTIVATION:
            wait = _in(key.next_change, now)
            raise UnsafeChange(f"one rotation at a time: {key.version.kid!r} has yet to sign, in {wait}")
    earliest = now + timing.publish_lead
    if at is not None and at < earliest:
        raise UnsafeChange(
            f"publish lead: verifiers need {timing.publish_lead} s to learn of a key before it signs; "
            f"the earliest time is {_in(earliest, now)} from now"
        )
    signs_from = math.ceil(earliest if at is None else at)
    retiring = current.signing
    leaves = signs_from + timing.retire_lag
    if retiring.not_after is not None:
        if retiring.not_after < leaves:
            raise UnsafeChange(
                f"retire lag: {retiring.kid!r} is to leave the JWKS in {_in(retiring.not_after, now)}, and "
                f"its last token dies in {_in(leaves, now)}; take the exp out of it, and rotate again"
            )
        leaves = math.ceil(retiring.not_after)
    published = {key.version.kid for key in current.keys}
    gone = tuple(version for version in versions if version.kid not in published)
    return Rotation(retiring, signs_from, leaves, gone)


def after_revocation(versions: Sequence[KeyVersion], kid: str, timing: Timing, now: float) -> Schedule:
    """Return what is in force once ``kid`` is taken out.

    Raises:
        UnsafeChange: there is no such version, or none would be left that can sign.
    """
    remaining = [version for version in versions if version.kid != kid]
    if len(remaining) == len(versions):
        raise UnsafeChange(f"there is no key {kid!r}; there are: {', '.join(repr(v.kid) for v in versions)}")
    try:
        return schedule(remaining, timing, now)
    except SignerMisconfigured:
        raise UnsafeChange(
            f"a key that can sign must remain: {kid!r} is the only one; rotate first, then revoke it"
        ) from None


def _in(when: float | None, now: float) -> str:
    return "no known time" if when is None else f"{when - now:.0f} s"
