"""When a key is published, signs, and leaves: one pure function of the versions, the policy and the time.

A verifier caches the published keys, and the MACP runtime does not fetch them again for a kid that
it does not know. So a key must have been published for long enough before it signs (the *publish
lead*), and stay for as long as a token that it signed can be alive (the *retire lag*). Everything
follows from times that the backend itself keeps, so every replica reaches the same answer without
a lock, a leader or a database. States are named as in NIST SP 800-57 part 1, section 7.
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
    """What a published key is for."""

    PRE_ACTIVATION = "pre-activation"
    """Published so that verifiers learn of it; does not sign yet."""
    ACTIVE = "active"
    """Signs."""
    DEACTIVATED = "deactivated"
    """Published for the tokens that it signed; signs no more."""


class Timing(Struct, frozen=True):
    """How long a new key is published before it signs, and an old one after."""

    publish_lead: int
    """Seconds from a version's creation to its first signature."""
    retire_lag: int
    """Seconds from a version's last signature until it leaves the JWKS."""


class KeyStatus(Struct, frozen=True, kw_only=True):
    """One published key, now."""

    version: KeyVersion
    state: State
    since: float | None
    """When it came into this state, in seconds since the epoch; None if nothing tells."""
    next_change: float | None
    """When it leaves this state; None if nothing is planned."""
    why: str
    """What happens then."""


class Schedule(Struct, frozen=True):
    """What is in force."""

    signing: KeyVersion
    keys: tuple[KeyStatus, ...]
    """Every published key, in the backend's order. Holds ``signing``; never empty."""

    @property
    def next_change(self) -> float | None:
        """When the first of the keys changes its state, in seconds since the epoch."""
        return min((key.next_change for key in self.keys if key.next_change is not None), default=None)


def schedule(versions: Sequence[KeyVersion], timing: Timing, now: float) -> Schedule:
    """Return what is in force at ``now``, in seconds since the epoch.

    The newest version whose time to sign has come signs. If there is none (a first key, or the
    others were withdrawn), the one that was made first signs at once: it has been published for
    longest. A version that a newer one replaced stays for the retire lag and signs no more, unless
    the newer one is withdrawn. An expiry leaves no gap: of versions with the same time to sign, the
    next goes on a retire lag before it, so that no token outlives its key; with no other, the
    version signs on until a newer one may, and leaves a retire lag after that.

    Raises:
        SignerMisconfigured: no version can sign, two share a kid, or a kid is none.
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
    """The times of one published key, in seconds since the epoch; None where nothing tells."""

    status: KeyStatus
    signs_from: float | None
    signs_until: float | None
    leaves: float | None


def lifetimes(versions: Sequence[KeyVersion], timing: Timing, now: float) -> list[Lifetime]:
    """Return when each key that is published at ``now`` begins to sign, stops, and leaves."""
    signers = _Signers([version for version in versions if version.can_sign], timing)
    return [_lifetime(status, signers, now) for status in schedule(versions, timing, now).keys]


def _lifetime(status: KeyStatus, signers: _Signers, now: float) -> Lifetime:
    version, timing = status.version, signers.timing
    if not version.can_sign:
        return Lifetime(status=status, signs_from=None, signs_until=None, leaves=version.not_after)
    start: float | None = starts_signing(version, timing)
    if start == -math.inf or (status.state is State.ACTIVE and start is not None and start > now):
        start = status.since
    stops = signers.stop_of(version)
    return Lifetime(
        status=status, signs_from=start, signs_until=stops, leaves=_leaves(version, stops, timing)
    )


def starts_signing(version: KeyVersion, timing: Timing) -> float:
    """When ``version`` may sign: its own time, else a publish lead after its creation, else always."""
    if version.not_before is not None:
        return version.not_before
    return -math.inf if version.created_at is None else version.created_at + timing.publish_lead


class _Signers:
    """The versions that can sign, grouped by the time from which they may."""

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
        """Return those that may sign from the latest time until ``now``, in the backend's order."""
        started = bisect_right(self._starts, now)
        return self._peers[self._starts[started - 1]] if started else []

    def stop_of(self, version: KeyVersion) -> float | None:
        """When a newer version takes over, or one of its own age at its expiry; None if neither is known."""
        start, must_stop = starts_signing(version, self.timing), _must_stop(version, self.timing)
        newer = bisect_right(self._starts, start)
        stops = self._starts[newer] if newer < len(self._starts) else math.inf
        if self._longest[start] > must_stop:
            stops = min(stops, must_stop)
        return stops if math.isfinite(stops) else None


def _published_at(version: KeyVersion, timing: Timing) -> float:
    """When ``version`` was first published; without a time of creation, a lead before it may sign."""
    if version.created_at is not None:
        return version.created_at
    return starts_signing(version, timing) - timing.publish_lead


def _must_stop(version: KeyVersion, timing: Timing) -> float:
    """When ``version`` must stop signing for its own expiry's sake."""
    return math.inf if version.not_after is None else version.not_after - timing.retire_lag


def _choose(able: list[KeyVersion], signers: _Signers, now: float) -> KeyVersion:
    # Before any has started, whatever their times: a rotation must not displace the key that
    # verifiers have learnt of.
    candidates = signers.newest_started(now) or able
    in_time = [version for version in candidates if now < _must_stop(version, signers.timing)]
    if in_time:
        # Where times say nothing, min() keeps to the backend's order: the first signs.
        return min(in_time, key=lambda version: _published_at(version, signers.timing))
    # A late signature is better than one that no verifier has the key for: the longest-lived one goes on.
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
