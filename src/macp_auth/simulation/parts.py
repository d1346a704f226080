"""The parts of the simulated world: a backend, its replicas, the verifiers.

Times are in seconds on the backend's clock since the start of the simulation. Every other clock is ahead
of it by up to the clock skew, because a replica whose clock is ahead signs too early.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Protocol

from msgspec import Struct

from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.policy import Verifier
from macp_auth.domain.rotation import Timing, schedule

_SHORTEST_TTL = 2.0**-14
"""Seconds. A set that may not be cached still serves the check that it was fetched for."""


class Random(Protocol):
    """A random number generator, such as ``random.Random``."""

    def random(self) -> float:
        """Return a number from 0 to 1, exclusive."""

    def randrange(self, stop: int, /) -> int:
        """Return an integer from 0 to ``stop``, exclusive."""


class Span(Struct, frozen=True):
    """A time span; its end is exclusive."""

    begin: float
    end: float


class Backend(Struct, frozen=True):
    """The key backend."""

    versions: tuple[KeyVersion, ...]
    withdrawn: dict[str, float] = {}
    """The time at which a version was removed, by kid."""

    def versions_at(self, now: float) -> list[KeyVersion]:
        """Return its versions at ``now``."""
        return [
            version
            for version in self.versions
            if (version.created_at or 0.0) <= now < self.withdrawn.get(version.kid, math.inf)
        ]

    def next_change(self, now: float) -> float:
        """When a version is next added or removed; infinite if never."""
        created = (version.created_at or 0.0 for version in self.versions)
        return min((t for t in (*created, *self.withdrawn.values()) if t > now), default=math.inf)


class Published(Struct, frozen=True):
    """The keys of one replica since a refresh."""

    since: float
    signing: str
    kids: frozenset[str]


class Replica(Struct, frozen=True, kw_only=True):
    """One instance of the service.

    It changes its keys only when it refreshes: an extra reading when a change is due may hang for the whole
    interval.
    """

    name: str
    phase: float
    """The time of one of its refreshes."""
    interval: float
    ahead: float
    """How far its clock is ahead."""
    history: list[Published]
    """Its keys over time, oldest first."""

    def at(self, now: float) -> Published:
        """Return its keys at ``now``."""
        index = bisect_right(self.history, now, key=lambda published: published.since)
        return self.history[max(index - 1, 0)]


def replica(  # noqa: PLR0913 - the parts of a replica
    name: str, backend: Backend, timing: Timing, *, phase: float, interval: float, ahead: float
) -> Replica:
    """Return a replica with its whole history, from the backend's first key."""
    begin = min(version.created_at or 0.0 for version in backend.versions)
    history: list[Published] = []
    now = _refresh(begin, phase, interval)
    while math.isfinite(now):
        due = schedule(backend.versions_at(now), timing, now + ahead)
        published = Published(now, due.signing.kid, frozenset(key.version.kid for key in due.keys))
        if not history or (published.signing, published.kids) != (history[-1].signing, history[-1].kids):
            history.append(published)
        change = math.inf if due.next_change is None else due.next_change - ahead
        change = min(change, backend.next_change(now))
        now = max(_refresh(change, phase, interval), now + interval)
    return Replica(name=name, phase=phase, interval=interval, ahead=ahead, history=history)


def _refresh(moment: float, phase: float, interval: float) -> float:
    """Return the first refresh at or after ``moment``."""
    if math.isinf(moment):
        return math.inf
    return phase + math.ceil((moment - phase) / interval) * interval


class Source(Protocol):
    """The source of the JWKS for a verifier."""

    def answer(self, now: float) -> tuple[Replica, float]:
        """Return the replica whose JWKS is served at ``now``, and the time of that JWKS."""


class FixedSource(Struct, frozen=True):
    """One replica behind an HTTP cache with a constant age."""

    publisher: Replica
    age: float
    """The age of the cached JWKS; at most its max-age."""

    def answer(self, now: float) -> tuple[Replica, float]:
        """Return the replica and the time of the cache's request."""
        return self.publisher, now - self.age


class RandomSource(Struct, frozen=True):
    """A random replica behind a random HTTP cache."""

    replicas: list[Replica]
    max_age: float
    rng: Random

    def answer(self, now: float) -> tuple[Replica, float]:
        """Return a replica and a time within the last max-age."""
        publisher = self.replicas[self.rng.randrange(len(self.replicas))]
        return publisher, now - self.rng.random() * self.max_age


class VerifierInstance(Struct, frozen=True, kw_only=True):
    """One running verifier."""

    profile: Verifier
    source: Source
    ahead: float
    """How far its clock is ahead."""
    first_fetch: float
    fetch_time: float
    """How long a response takes to arrive; its content is as old as the request."""
    outages: tuple[Span, ...] = ()
    """When it can't fetch; in order."""


class Cache:
    """The cached JWK Set of a verifier.

    The verifier is busy, so it fetches as soon as the set's TTL has passed. The TTL starts when the
    response arrives. A check during a fetch waits for the response.
    """

    __slots__ = ("_site", "_ttl", "arrived", "as_of", "kids", "publisher", "requested")

    def __init__(self, instance: VerifierInstance) -> None:
        self._site = instance
        ttl = instance.profile.cache_ttl
        self._ttl = math.inf if ttl is None else max(ttl, _SHORTEST_TTL)
        self._fetch(instance.first_fetch)

    def has(self, kid: str, now: float) -> bool:
        """Whether the verifier finds ``kid`` at ``now``; calls must be in order of time."""
        self._advance(now)
        if self._usable(now) and kid in self.kids:
            return True
        if self._may_ask_for_unknown_kid(now):
            self._fetch(now)
        return self._usable(now) and kid in self.kids

    def is_stale(self, now: float) -> bool:
        """Whether the set is used after its TTL."""
        return now >= self.arrived + self._ttl

    def is_cut_off(self, now: float) -> bool:
        """Whether the verifier can't fetch, and the policy does not cover that.

        It does not cover a verifier whose grace has ended: that accepts no key. Nor does the needed lead
        cover a verifier with an unbounded grace, or one that would fetch for the unknown kid.
        """
        profile = self._site.profile
        unbridged = profile.stale_grace is None or profile.refetch_cooldown is not None
        return self._reachable_from(now) > now and (unbridged or not self._usable(now))

    def _usable(self, now: float) -> bool:
        profile = self._site.profile
        if profile.stale_grace is None:
            return True
        return now < self.arrived + self._ttl + profile.stale_grace

    def _may_ask_for_unknown_kid(self, now: float) -> bool:
        cooldown = self._site.profile.refetch_cooldown
        return cooldown is not None and now >= self.arrived + cooldown and self._reachable_from(now) == now

    def _advance(self, now: float) -> None:
        """Fetch as often as the TTL requires until ``now``; simulate only the last fetch of a series."""
        while (due := self._reachable_from(self.arrived + self._ttl)) <= now:
            self._fetch(self._last_of_run(due, now, self._ttl + self._site.fetch_time))

    def _last_of_run(self, due: float, now: float, period: float) -> float:
        """Return the last request, one every ``period`` from ``due``, before ``now`` or an outage."""
        outage = min((span.begin for span in self._site.outages if span.begin > due), default=math.inf)
        last = due + (min(now, outage) - due) // period * period
        return max(due, last - period) if last >= outage else last

    def _reachable_from(self, moment: float) -> float:
        """Return the first time from ``moment`` at which the verifier can fetch."""
        for span in self._site.outages:
            if span.begin <= moment < span.end:
                moment = span.end
        return moment

    def _fetch(self, now: float) -> None:
        self.publisher, self.as_of = self._site.source.answer(now)
        self.kids = self.publisher.at(self.as_of).kids
        self.requested = now
        self.arrived = now + self._site.fetch_time
