"""The parts of the simulated world: a backend, its replicas, the verifiers.

Times are in seconds on the backend's clock, from the beginning of the simulation. Every other clock
is ahead of it by up to the clock skew: no two are further apart, and a replica whose clock is ahead
is the one that signs too soon.
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
"""Seconds. A set that may not be kept still serves the check that it was fetched for."""


class Random(Protocol):
    """What the simulation needs of a generator of random numbers; ``random.Random`` is one."""

    def random(self) -> float:
        """Return a number from 0 up to 1."""

    def randrange(self, stop: int, /) -> int:
        """Return a whole number from 0 up to ``stop``."""


class Span(Struct, frozen=True):
    """A stretch of time; its end is no part of it."""

    begin: float
    end: float


class Backend(Struct, frozen=True):
    """Where the keys come from."""

    versions: tuple[KeyVersion, ...]
    withdrawn: dict[str, float] = {}
    """When a version was taken out, by kid."""

    def versions_at(self, now: float) -> list[KeyVersion]:
        """Return the versions that it offers at ``now``."""
        return [
            version
            for version in self.versions
            if (version.created_at or 0.0) <= now < self.withdrawn.get(version.kid, math.inf)
        ]

    def next_change(self, now: float) -> float:
        """When a version comes or goes next; infinite if none does."""
        created = (version.created_at or 0.0 for version in self.versions)
        return min((t for t in (*created, *self.withdrawn.values()) if t > now), default=math.inf)


class Published(Struct, frozen=True):
    """What one replica has in force, from a refresh on."""

    since: float
    signing: str
    kids: frozenset[str]


class Replica(Struct, frozen=True, kw_only=True):
    """One instance of the service.

    It decides when it refreshes, and only then: the reading of the backend's keys that should have
    come when a change was due may hang for the whole interval.
    """

    name: str
    phase: float
    """One of the moments at which it refreshes."""
    interval: float
    ahead: float
    """How far its clock is ahead."""
    history: list[Published]
    """What it has in force over time, oldest first."""

    def at(self, now: float) -> Published:
        """Return what it has in force at ``now``."""
        index = bisect_right(self.history, now, key=lambda published: published.since)
        return self.history[max(index - 1, 0)]


def replica(  # noqa: PLR0913 - what a replica is made of
    name: str, backend: Backend, timing: Timing, *, phase: float, interval: float, ahead: float
) -> Replica:
    """Return a replica with its whole history, from the first moment at which the backend has a key."""
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
    """Return the first refresh that is not before ``moment``."""
    if math.isinf(moment):
        return math.inf
    return phase + math.ceil((moment - phase) / interval) * interval


class Source(Protocol):
    """Where a verifier's requests for the JWKS end up."""

    def answer(self, now: float) -> tuple[Replica, float]:
        """Return the replica whose JWKS is served at ``now``, and the moment that JWKS is of."""


class FixedSource(Struct, frozen=True):
    """One replica, behind an HTTP cache that is always equally late."""

    publisher: Replica
    age: float
    """How old the JWKS is that the cache serves; at most its max-age."""

    def answer(self, now: float) -> tuple[Replica, float]:
        """Return the replica, and the moment at which the cache asked it."""
        return self.publisher, now - self.age


class RandomSource(Struct, frozen=True):
    """Any replica, behind any HTTP cache."""

    replicas: list[Replica]
    max_age: float
    rng: Random

    def answer(self, now: float) -> tuple[Replica, float]:
        """Return a replica, and a moment within the last max-age."""
        publisher = self.replicas[self.rng.randrange(len(self.replicas))]
        return publisher, now - self.rng.random() * self.max_age


class VerifierInstance(Struct, frozen=True, kw_only=True):
    """One verifier, where it runs."""

    profile: Verifier
    source: Source
    ahead: float
    """How far its clock is ahead."""
    first_fetch: float
    fetch_time: float
    """How long an answer takes to arrive; what it says is as old as the request."""
    outages: tuple[Span, ...] = ()
    """When it can't fetch; in order."""


class Cache:
    """The JWK Set that a verifier holds.

    The verifier is busy: it fetches as soon as the set's TTL has passed. The TTL counts from the
    answer's arrival. A check that comes while an answer is on its way waits for it.
    """

    __slots__ = ("_site", "_ttl", "arrived", "as_of", "kids", "publisher", "requested")

    def __init__(self, instance: VerifierInstance) -> None:
        self._site = instance
        ttl = instance.profile.cache_ttl
        self._ttl = math.inf if ttl is None else max(ttl, _SHORTEST_TTL)
        self._fetch(instance.first_fetch)

    def has(self, kid: str, now: float) -> bool:
        """Tell whether the verifier finds ``kid`` at ``now``; calls come in the order of time."""
        self._advance(now)
        if self._usable(now) and kid in self.kids:
            return True
        if self._may_ask_for_unknown_kid(now):
            self._fetch(now)
        return self._usable(now) and kid in self.kids

    def is_stale(self, now: float) -> bool:
        """Tell whether the set is used past its TTL."""
        return now >= self.arrived + self._ttl

    def is_cut_off(self, now: float) -> bool:
        """Tell whether the verifier can't fetch, and the policy does not bridge that.

        Nothing does when the grace has ended: then no key at all is accepted. The needed lead does not
        for a verifier whose grace has no end, nor for one that would fetch for the unknown kid.
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
        """Fetch as often as the TTL asks for until ``now``. Only the last of a regular run is carried out."""
        while (due := self._reachable_from(self.arrived + self._ttl)) <= now:
            self._fetch(self._last_of_run(due, now, self._ttl + self._site.fetch_time))

    def _last_of_run(self, due: float, now: float, period: float) -> float:
        """Return the last request, one every ``period`` from ``due``, until ``now`` or an outage."""
        outage = min((span.begin for span in self._site.outages if span.begin > due), default=math.inf)
        last = due + (min(now, outage) - due) // period * period
        return max(due, last - period) if last >= outage else last

    def _reachable_from(self, moment: float) -> float:
        """Return the first moment, from ``moment`` on, at which the verifier can fetch."""
        for span in self._site.outages:
            if span.begin <= moment < span.end:
                moment = span.end
        return moment

    def _fetch(self, now: float) -> None:
        self.publisher, self.as_of = self._site.source.answer(now)
        self.kids = self.publisher.at(self.as_of).kids
        self.requested = now
        self.arrived = now + self._site.fetch_time
