"""Key rotation: when a key is published, signs, and leaves the JWKS.

Verifiers cache the published keys, and the MACP runtime does not fetch them again for an unknown kid.
So a key must be published for some time before it signs (the *publish lead*), and stay published until
all its tokens have expired (the *retire lag*). The schedule is a pure function of the versions, the
policy and the time. All times come from the backend, so every replica computes the same schedule
without a lock, a leader or a database. States are named as in NIST SP 800-57 part 1, section 7.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from enum import StrEnum

from msgspec import Struct

from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.keys import MAX_KID_CHARS, KeyVersion, is_kid


class State(StrEnum):
    """The state of a published key."""

    PRE_ACTIVATION = "pre-activation"
    """Published so that verifiers learn it; does not sign yet."""
    ACTIVE = "active"
    """Signs."""
    DEACTIVATED = "deactivated"
    """Published for the tokens that it signed; no longer signs."""


class Timing(Struct, frozen=True):
    """How long a key is published before its first signature and after its last."""

    publish_lead: int
    """Seconds from a version's creation to its first signature."""
    retire_lag: int
    """Seconds from a version's last signature until it leaves the JWKS."""


class KeyStatus(Struct, frozen=True, kw_only=True):
    """The current state of one published key."""

    version: KeyVersion
    state: State
    since: float | None
    """When it entered this state, in seconds since the epoch; None if unknown."""
    next_change: float | None
    """When it leaves this state; None if nothing is planned."""
    why: str
    """What happens at that time."""


class Schedule(Struct, frozen=True):
    """The signing version and all published keys."""

    signing: KeyVersion
    keys: tuple[KeyStatus, ...]
    """Every published key, in the backend's order. Includes ``signing``; never empty."""

    @property
    def next_change(self) -> float | None:
        """The next time at which a key changes its state, in seconds since the epoch."""
        return min((key.next_change for key in self.keys if key.next_change is not None), default=None)


def schedule(versions: Sequence[KeyVersion], timing: Timing, now: float) -> Schedule:
    """Return the schedule at ``now``, in seconds since the epoch.

    The newest version that may sign does. If none may yet (a first key, or the others were withdrawn), the
    oldest signs at once: it has been published longest. A version that a newer one replaced stays for the
    retire lag and no longer signs, unless the newer one is withdrawn. A version with an expiry stops a
    retire lag before it, so that no token outlives its key: another version with the same signing time
    takes over. Without one, it signs until a newer version may, and leaves a retire lag after that.

    Raises:
        SignerMisconfigured: no version can sign, two share a kid, or a kid is invalid.
    """
    if len({version.kid for version in versions}) < len(versions):
        raise SignerMisconfigured("the signer offers two key versions with the same kid")
    if not all(is_kid(version.kid) for version in versions):
        raise SignerMisconfigured(
            f"the signer offers a kid that is not 1 to {MAX_KID_CHARS} visible characters; rename that key"
        )
    able = [version for version in versions if version.can_sign]
    if not able:
        raise SignerMisconfigured("the signer offers no key version that can sign")
    signers = _Signers(able, timing)
    signing = _choose(able, signers, now)
    published = (_status(version, signing, signers, now) for version in versions)
    return Schedule(signing, tuple(key for key in published if key is not None))


class Lifetime(Struct, frozen=True, kw_only=True):
    """The times of one published key, in seconds since the epoch; None if unknown."""

    status: KeyStatus
    signs_from: float | None
    signs_until: float | None
    leaves: float | None


def lifetimes(versions: Sequence[KeyVersion], timing: Timing, now: float) -> list[Lifetime]:
    """Return when each key published at ``now`` starts signing, stops, and leaves."""
    signers = _Signers([version for version in versions if version.can_sign], timing)
    return [_lifetime(status, signers) for status in schedule(versions, timing, now).keys]


def _lifetime(status: KeyStatus, signers: _Signers) -> Lifetime:
    version, timing = status.version, signers.timing
    if not version.can_sign:
        return Lifetime(status=status, signs_from=None, signs_until=None, leaves=version.not_after)
    start = starts_signing(version, timing)
    stops = signers.stop_of(version)
    leaves = _leaves(version, stops, timing)
    if status.state is State.ACTIVE:  # perhaps sooner than planned, and for longer
        stops = status.next_change
        return Lifetime(
            status=status,
            signs_from=status.since,
            signs_until=stops,
            leaves=None if stops is None else leaves,
        )
    return Lifetime(
        status=status,
        signs_from=start if math.isfinite(start) else None,
        signs_until=stops,
        leaves=leaves,
    )


def starts_signing(version: KeyVersion, timing: Timing) -> float:
    """Return when ``version`` may sign: its own time, else a publish lead after creation, else always."""
    if version.not_before is not None:
        return version.not_before
    return -math.inf if version.created_at is None else version.created_at + timing.publish_lead


class _Signers:
    """The versions that can sign, grouped by their earliest signing time."""

    def __init__(self, able: Iterable[KeyVersion], timing: Timing) -> None:
        self.timing = timing
        self._peers: dict[float, list[KeyVersion]] = {}
        for version in able:
            self._peers.setdefault(starts_signing(version, timing), []).append(version)
        self._starts = sorted(self._peers)
        self._longest = {
            start: max(_must_stop(peer, timing) for peer in peers) for start, peers in self._peers.items()
        }

    def newest_started(self, now: float) -> list[KeyVersion]:
        """Return those with the latest signing time that is not after ``now``, in the backend's order."""
        started = bisect_right(self._starts, now)
        return self._peers[self._starts[started - 1]] if started else []

    def stop_of(self, version: KeyVersion) -> float | None:
        """When a newer version takes over, or one of equal age at its expiry; None if neither is known."""
        start, must_stop = starts_signing(version, self.timing), _must_stop(version, self.timing)
        newer = bisect_right(self._starts, start)
        stops = self._starts[newer] if newer < len(self._starts) else math.inf
        if self._longest[start] > must_stop:
            stops = min(stops, must_stop)
        return stops if math.isfinite(stops) else None


def _published_at(version: KeyVersion, timing: Timing) -> float:
    """When ``version`` was first published; without a creation time, a lead before it may sign."""
    if version.created_at is not None:
        return version.created_at
    return starts_signing(version, timing) - timing.publish_lead


def _must_stop(version: KeyVersion, timing: Timing) -> float:
    """When ``version`` must stop signing because of its expiry."""
    return math.inf if version.not_after is None else version.not_after - timing.retire_lag


def _choose(able: list[KeyVersion], signers: _Signers, now: float) -> KeyVersion:
    # Before any has started: a rotation must not displace the key that verifiers already have.
    candidates = signers.newest_started(now) or able
    in_time = [version for version in candidates if now < _must_stop(version, signers.timing)]
    if in_time:
        # For equal times, min() keeps the backend's order: the first signs.
        return min(in_time, key=lambda version: _published_at(version, signers.timing))
    # A late signature is better than one that no verifier has the key for: use the key that lives longest.
    return max(candidates, key=lambda version: _must_stop(version, signers.timing))


def _status(version: KeyVersion, signing: KeyVersion, signers: _Signers, now: float) -> KeyStatus | None:
    """Return how ``version`` is published, or None if it is not."""
    if version is signing:
        return _active(version, signers, now)
    timing = signers.timing
    start = starts_signing(version, timing)
    if version.can_sign and now < start:
        return KeyStatus(
            version=version,
            state=State.PRE_ACTIVATION,
            since=version.created_at,
            next_change=start,
            why="starts signing",
        )
    stopped = signers.stop_of(version) if version.can_sign else None
    leaves = _leaves(version, stopped, timing)
    if leaves is not None and leaves <= now:
        return None
    why = "stays until it is removed" if leaves is None else "leaves the JWKS"
    return KeyStatus(version=version, state=State.DEACTIVATED, since=stopped, next_change=leaves, why=why)


def _active(version: KeyVersion, signers: _Signers, now: float) -> KeyStatus:
    start = starts_signing(version, signers.timing)
    stops = signers.stop_of(version)
    if stops is not None and stops <= now:
        stops = None
    return KeyStatus(
        version=version,
        state=State.ACTIVE,
        since=start if math.isfinite(start) and start <= now else version.created_at,
        next_change=stops,
        why="signs until it is replaced" if stops is None else "stops signing",
    )


def _leaves(version: KeyVersion, stopped: float | None, timing: Timing) -> float | None:
    if stopped is None:
        return version.not_after
    replaced = stopped + timing.retire_lag
    return replaced if version.not_after is None else max(replaced, version.not_after)
