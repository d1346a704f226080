"""What would happen: key rotations, played against many verifiers.

Each verifier is independent of the others, given what the replicas publish. So the replicas'
histories are computed once, then the verifiers are played one by one, and memory does not grow with
their number. Besides a random population, every rotation has verifiers for which each term of the
sums in :mod:`macp_auth.domain.policy` is at its extreme at once: they make the simulation fail when
a lead or a lag is one second too short.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from msgspec import Struct, field

from macp_auth.domain.keys import Algorithm, ECPublicJWK, KeyVersion
from macp_auth.domain.policy import RotationPolicy, Verifier
from macp_auth.domain.rotation import Timing
from macp_auth.simulation.parts import (
    Backend,
    Cache,
    Chance,
    FixedSource,
    RandomSource,
    Replica,
    Site,
    Source,
    Span,
    replica,
)

_INSTANT = 1 / 1024
"""Seconds between "just before" and "at"; a power of two, so that sums stay exact."""
_TOKENS_EACH = 3
_LONGEST_OUTAGE = 3600
"""Seconds. As long as the MACP runtime's stale grace: it must live through any one of them."""
_SOONEST_REFRESH = 0.8
"""Of the interval: how much sooner than planned a replica may refresh."""


class Scenario(Struct, frozen=True, kw_only=True):
    """What is played."""

    policy: RotationPolicy
    timing: Timing
    verifiers: tuple[Verifier, ...]
    """The kinds, in equal shares."""
    population: int = 10_000
    """How many verifiers."""
    replicas: int = 3
    rotations: int = 3
    revoke: bool = False
    """Whether the last key is withdrawn while it signs."""
    clock_skew: float = 30
    """How far two clocks are apart, in seconds."""
    outages: int = 1
    """How often no verifier can fetch, for up to an hour."""
    outage_rate: float = 0.1
    """The share of verifiers that have an outage of their own, of up to an hour."""
    slow_fetches: bool = True
    """Whether a fetch may take as long as the verifier waits for it; else it takes no time."""


class Token(Struct, frozen=True):
    """A token, as far as keys are concerned. Its times are not cut to whole seconds, so it lives longest."""

    kid: str
    signer: Replica | None
    """None if somebody forged it with a stolen key."""
    minted: float
    expires: float
    """``exp``; a time on the clock of its reader."""


class Check(Struct, frozen=True):
    """One reading of a token."""

    at: float
    token: Token


class Encounter(Struct, frozen=True):
    """A verifier, and the checks that it makes in the order of time."""

    site: Site
    checks: list[Check]


class Failure(Struct, frozen=True):
    """A token that was wrongly rejected."""

    at: float
    verifier: str
    kid: str
    story: list[tuple[float, str]]
    """What led to it: times and events, in order."""


class LateAcceptance(Struct):
    """How verifiers of one kind accepted a revoked key. Times in seconds after the revocation."""

    count: int = 0
    latest: float | None = None
    """The last acceptance by a verifier that could fetch."""
    latest_blocked: float | None = None
    """The last by one that could not."""


class Report(Struct, kw_only=True):
    """What came of it."""

    verifiers: int = 0
    tokens: int = 0
    checks: int = 0
    wrongly_rejected: int = 0
    """The token was unexpired, its key not revoked, and the verifier did not have it."""
    cut_off: int = 0
    """The same, but the verifier could not fetch, which the policy does not bridge for its kind."""
    after_revocation: dict[str, LateAcceptance] = field(default_factory=dict)
    """By the verifier's kind."""
    first_failure: Failure | None = None


class World(Struct, frozen=True, kw_only=True):
    """The scenario with its keys and replicas made."""

    scenario: Scenario
    backend: Backend
    replicas: list[Replica]
    outages: tuple[Span, ...]
    end: float

    @property
    def new_keys(self) -> tuple[KeyVersion, ...]:
        """The keys that rotations made."""
        return self.backend.versions[1:]

    def starts(self, version: KeyVersion) -> float:
        """When ``version`` is to start signing, by the backend's clock."""
        return (version.created_at or 0.0) + self.scenario.timing.publish_lead

    def replica(self, name: str, *, phase: float, ahead: float, interval: float | None = None) -> Replica:
        """Return one more replica of this world; it refreshes as late as it may unless told otherwise."""
        return replica(
            name,
            self.backend,
            self.scenario.timing,
            phase=phase,
            interval=interval or self.scenario.policy.refresh,
            ahead=ahead,
        )


def simulate(world: World, chance: Chance) -> Report:
    """Play the scenario of ``world``; equal generators give equal worlds and reports."""
    report = Report()
    for encounter in _encounters(world, chance):
        _play(encounter, world, report)
    return report


# --- the world ---------------------------------------------------------------------------------------


def make_world(scenario: Scenario, chance: Chance) -> World:
    """Return the keys, a lead and a lag apart, and the replicas with random phases and clocks."""
    timing = scenario.timing
    every = max(1, timing.publish_lead + timing.retire_lag)
    first = _version("key-1", -float(every))
    backend = Backend(
        (first, *(_version(f"key-{n + 2}", float(n * every)) for n in range(scenario.rotations)))
    )
    if scenario.revoke:
        backend = Backend(backend.versions, {backend.versions[-1].kid: _revocation(scenario, backend)})
    end = float((scenario.rotations + 1) * every)
    world = World(
        scenario=scenario,
        backend=backend,
        replicas=[],
        outages=_outages(scenario.outages, end, chance),
        end=end,
    )
    world.replicas.extend(
        _random_replica(f"replica {n + 1}", world, chance) for n in range(scenario.replicas)
    )
    return world


def _version(kid: str, created_at: float) -> KeyVersion:
    jwk = ECPublicJWK(crv="P-256", x="", y="")  # nobody looks
    return KeyVersion(
        kid=kid, algorithm=Algorithm.ES256, public_jwk=jwk, can_sign=True, created_at=created_at
    )


def _revocation(scenario: Scenario, backend: Backend) -> float:
    """Return a time at which the last key signs and the one before it is published: it takes over."""
    timing, refresh = scenario.timing, scenario.policy.refresh
    starts = (backend.versions[-1].created_at or 0.0) + timing.publish_lead
    return starts + max(0, timing.retire_lag - refresh - math.ceil(scenario.clock_skew)) // 2


def _random_replica(name: str, world: World, chance: Chance) -> Replica:
    interval = world.scenario.policy.refresh * (_SOONEST_REFRESH + (1 - _SOONEST_REFRESH) * chance.random())
    ahead = chance.random() * world.scenario.clock_skew
    return world.replica(name, phase=chance.random() * interval, interval=interval, ahead=ahead)


def _outages(count: int, end: float, chance: Chance) -> tuple[Span, ...]:
    begins = sorted(chance.random() * end for _ in range(count))
    return tuple(Span(begin, begin + chance.random() * _LONGEST_OUTAGE) for begin in begins)


# --- who meets which tokens ----------------------------------------------------------------------------


def _encounters(world: World, chance: Chance) -> Iterator[Encounter]:
    scenario = world.scenario
    for verifier in scenario.verifiers:
        for key in world.new_keys:
            yield _learns_as_late_as_can_be(key, verifier, world)
            yield _forgets_as_soon_as_can_be(key, verifier, world)
        for kid, revoked in world.backend.withdrawn.items():
            yield _hears_last(kid, revoked, verifier, world, blocked=False)
            yield _hears_last(kid, revoked, verifier, world, blocked=True)
    source = RandomSource(world.replicas, scenario.policy.max_age, chance)
    for number in range(scenario.population):
        yield _random_encounter(scenario.verifiers[number % len(scenario.verifiers)], source, world, chance)


def _learns_as_late_as_can_be(key: KeyVersion, verifier: Verifier, world: World) -> Encounter:
    """All terms of the publish lead at once.

    A replica refreshed just before the key was made, and an HTTP cache asked it just before it
    refreshed again. When the cache's copy was about to end, the verifier asked for it; the answer
    took all the time that it may take, and then the verifier could not fetch until its grace ended.
    Meanwhile, a replica whose clock is ahead signs with the key at the first moment it may.
    """
    scenario, made = world.scenario, key.created_at or 0.0
    policy = scenario.policy
    publisher = world.replica("replica A", phase=made - _INSTANT, ahead=0)
    asks = made + policy.refresh + policy.max_age - 2 * _INSTANT
    signs = made + max(0, scenario.timing.publish_lead - scenario.clock_skew)
    signer = world.replica("replica B", phase=signs, ahead=scenario.clock_skew)
    bridged = verifier.refetch_cooldown is None and verifier.stale_grace is not None
    site = _worst_site(verifier, FixedSource(publisher, policy.max_age), asks, world, blocked=bridged)
    at = max(signs, asks)
    return Encounter(site, [Check(at, _mint(signer, at, policy.max_ttl))])


def _worst_site(verifier: Verifier, source: Source, asks: float, world: World, *, blocked: bool) -> Site:
    """Return a verifier that asks once and, if blocked, not again before its grace ends."""
    fetch_time = verifier.fetch_timeout if world.scenario.slow_fetches else 0
    patience = math.inf if verifier.stale_grace is None else (verifier.cache_ttl or 0) + verifier.stale_grace
    arrives = asks + fetch_time
    return Site(
        profile=verifier,
        source=source,
        ahead=0,
        first_fetch=asks,
        fetch_time=fetch_time,
        outages=(Span(arrives, arrives + patience),) if blocked else (),
    )


def _forgets_as_soon_as_can_be(successor: KeyVersion, verifier: Verifier, world: World) -> Encounter:
    """All terms of the retire lag at once.

    A replica refreshed just before the successor was due, so it signed with the old key for a whole
    refresh interval more, at last a token of the longest life. A replica whose clock is ahead drops
    the old key at the first moment it may, and a verifier whose clock is behind fetches right then.
    """
    scenario, due = world.scenario, world.starts(successor)
    signer = world.replica("replica B", phase=due - _INSTANT, ahead=0)
    token = _mint(signer, due + scenario.policy.refresh - 2 * _INSTANT, scenario.policy.max_ttl)
    drops = due + scenario.timing.retire_lag - scenario.clock_skew
    publisher = world.replica("replica A", phase=drops, ahead=scenario.clock_skew)
    site = Site(profile=verifier, source=FixedSource(publisher, 0), ahead=0, first_fetch=drops, fetch_time=0)
    last = _dies(token, site) - _INSTANT
    return Encounter(site, [Check(last, token)])


def _hears_last(kid: str, revoked: float, verifier: Verifier, world: World, *, blocked: bool) -> Encounter:
    """All terms of the revocation bound at once, for a token forged with the revoked key."""
    policy = world.scenario.policy
    publisher = world.replica("replica A", phase=revoked - _INSTANT, ahead=0)
    asks = revoked + policy.refresh + policy.max_age - 2 * _INSTANT
    site = _worst_site(verifier, FixedSource(publisher, policy.max_age), asks, world, blocked=blocked)
    token = Token(kid, None, revoked, math.inf)
    ends = asks + site.fetch_time + (verifier.cache_ttl or 0)
    stale_ends = ends + (verifier.stale_grace or 0)
    moments = [ends - _INSTANT, ends, stale_ends - _INSTANT, stale_ends, stale_ends + policy.max_ttl]
    return Encounter(site, [Check(at, token) for at in sorted(moments) if at >= asks])


def _random_encounter(verifier: Verifier, source: Source, world: World, chance: Chance) -> Encounter:
    scenario = world.scenario
    outages = world.outages
    if chance.random() < scenario.outage_rate:
        outages = tuple(sorted((*outages, *_outages(1, world.end, chance)), key=lambda span: span.begin))
    site = Site(
        profile=verifier,
        source=source,
        ahead=chance.random() * scenario.clock_skew,
        first_fetch=-chance.random() * (verifier.cache_ttl or 0),
        fetch_time=chance.random() * verifier.fetch_timeout if scenario.slow_fetches else 0,
        outages=outages,
    )
    checks = [check for _ in range(_TOKENS_EACH) for check in _random_token(site, world, chance)]
    for kid, revoked in world.backend.withdrawn.items():
        checks += _forged_token(kid, revoked, verifier, world, chance)
    checks.sort(key=lambda check: check.at)
    return Encounter(site, checks)


def _random_token(site: Site, world: World, chance: Chance) -> Iterator[Check]:
    """Yield the checks of one token: when it is new, some time later, and at its last moment."""
    scenario = world.scenario
    signer = world.replicas[chance.randrange(len(world.replicas))]
    longest = scenario.policy.max_ttl
    ttl = longest if chance.random() < 1 / 2 else 1 + chance.randrange(longest)
    token = _mint(signer, _random_moment(world, chance), ttl)
    last = _dies(token, site) - _INSTANT
    yield Check(token.minted, token)
    yield Check(token.minted + chance.random() * (last - token.minted), token)
    yield Check(last, token)


def _random_moment(world: World, chance: Chance) -> float:
    """Return when a token is minted: at any time, or near a rotation, where it matters."""
    if not world.new_keys or chance.random() < 1 / 2:
        return chance.random() * world.end
    starts = world.starts(world.new_keys[chance.randrange(len(world.new_keys))])
    spread = 2 * (world.scenario.policy.refresh + world.scenario.clock_skew)
    return max(0.0, starts + (2 * chance.random() - 1) * spread)


def _forged_token(
    kid: str, revoked: float, verifier: Verifier, world: World, chance: Chance
) -> Iterator[Check]:
    """Yield checks of a token that a thief of the key made, as long as it may be accepted, and longer."""
    policy = world.scenario.policy
    bound = policy.blocked_revocation_bound(verifier) or policy.revocation_bound(verifier)
    window = 1.5 * (bound.seconds if bound else _LONGEST_OUTAGE)
    token = Token(kid, None, revoked, math.inf)
    yield from (Check(revoked + chance.random() * window, token) for _ in range(_TOKENS_EACH))


def _mint(signer: Replica, now: float, ttl: float) -> Token:
    return Token(signer.at(now).signing, signer, now, now + signer.ahead + ttl)


def _dies(token: Token, site: Site) -> float:
    """Return the moment from which ``site`` rejects ``token`` as expired (RFC 7519, section 4.1.4)."""
    return token.expires + site.profile.leeway - site.ahead


# --- what comes of it ----------------------------------------------------------------------------------


def _play(encounter: Encounter, world: World, report: Report) -> None:
    site, cache = encounter.site, Cache(encounter.site)
    report.verifiers += 1
    report.tokens += len({id(check.token) for check in encounter.checks})
    for check in encounter.checks:
        if site.first_fetch <= check.at < _dies(check.token, site):
            report.checks += 1
            _judge(check, site, cache, world, report)


def _judge(check: Check, site: Site, cache: Cache, world: World, report: Report) -> None:
    accepted = cache.has(check.token.kid, check.at)
    revoked = world.backend.withdrawn.get(check.token.kid, math.inf)
    if check.at >= revoked:
        if accepted:
            stale = cache.is_stale(check.at)
            _note_late(report, site.profile.name, check.at - revoked, stale=stale)
    elif accepted:
        return
    elif cache.is_cut_off(check.at):
        report.cut_off += 1
    else:
        report.wrongly_rejected += 1
        if report.first_failure is None or check.at < report.first_failure.at:
            story = _story(check, site, cache, world)
            report.first_failure = Failure(check.at, site.profile.name, check.token.kid, story)


def _note_late(report: Report, verifier: str, after: float, *, stale: bool) -> None:
    late = report.after_revocation.setdefault(verifier, LateAcceptance())
    late.count += 1
    if stale:
        late.latest_blocked = max(after, late.latest_blocked or 0.0)
    else:
        late.latest = max(after, late.latest or 0.0)


def _story(check: Check, site: Site, cache: Cache, world: World) -> list[tuple[float, str]]:
    """Return the events that led to the rejection, in the order of time."""
    kid, token, name = check.token.kid, check.token, f"the verifier ({site.profile.name})"
    events = [*_plan(kid, world), *_publication(kid, cache.publisher), *_fetch(name, cache)]
    for span in site.outages:
        if cache.requested <= span.end:
            events += [
                (span.begin, f"{name} can't fetch from here on"),
                (span.end, f"{name} can fetch again"),
            ]
    if token.signer is not None:
        clock = f"{token.signer.name}, its clock {token.signer.ahead:g} s ahead,"
        events.append((token.minted, f"{clock} signs a token with {kid}"))
    events = sorted((event for event in events if event[0] <= check.at), key=lambda event: event[0])
    return [*events, (check.at, f"{name} rejects the token: it does not have {kid}")]


def _plan(kid: str, world: World) -> Iterator[tuple[float, str]]:
    """Yield when the backend makes ``kid``, and when the next key is due to replace it."""
    versions = world.backend.versions
    index = [version.kid for version in versions].index(kid)
    yield versions[index].created_at or 0.0, f"the backend makes {kid}"
    for successor in versions[index + 1 : index + 2]:
        yield world.starts(successor), f"{successor.kid} is due to replace {kid}"


def _publication(kid: str, publisher: Replica) -> Iterator[tuple[float, str]]:
    """Yield when ``publisher`` begins and ends to publish ``kid``."""
    published = False
    for change in publisher.history:
        if (kid in change.kids) != published:
            published = not published
            what = "publishes" if published else "no longer publishes"
            yield change.since, f"{publisher.name} {what} {kid}"


def _fetch(name: str, cache: Cache) -> Iterator[tuple[float, str]]:
    """Yield how the JWK Set came to the verifier."""
    source, held = cache.publisher.name, ", ".join(sorted(cache.kids))
    if cache.as_of < cache.requested:
        yield cache.as_of, f"an HTTP cache fetches the JWKS from {source}: {held}"
        source = "the HTTP cache"
    yield cache.requested, f"{name} fetches the JWKS from {source}: {held}"
    if cache.arrived > cache.requested:
        yield cache.arrived, f"the answer arrives at {name}"
