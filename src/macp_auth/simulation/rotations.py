"""Simulates key rotations with many verifiers.

Verifiers are independent of each other. So the replicas' histories are computed once and the verifiers
are simulated one by one; memory does not grow with their number. Besides a random population, every
rotation has worst-case verifiers, for which each term of the sums in :mod:`macp_auth.domain.policy` is
at its maximum: they make the simulation fail when a lead or a lag is one second too short.
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
    FixedSource,
    Random,
    RandomSource,
    Replica,
    Source,
    Span,
    VerifierInstance,
    replica,
)

_INSTANT = 1 / 1024
"""Seconds between "just before" and "at"; a power of two, so that sums stay exact."""
_TOKENS_EACH = 3
_LONGEST_OUTAGE = 3600
"""Seconds. As long as the MACP runtime's stale grace, so that it survives any single outage."""
_SOONEST_REFRESH = 0.8
"""The earliest refresh, as a fraction of the interval."""


class Setup(Struct, frozen=True, kw_only=True):
    """The parameters of a simulation."""

    policy: RotationPolicy
    timing: Timing
    verifiers: tuple[Verifier, ...]
    """The kinds of verifiers, in equal shares."""
    population: int = 10_000
    """Number of verifiers."""
    replicas: int = 3
    rotations: int = 3
    revoke: bool = False
    """Whether the last key is withdrawn while it signs."""
    clock_skew: float = 30
    """Maximum difference between two clocks, in seconds."""
    outages: int = 1
    """Number of outages of up to an hour in which no verifier can fetch."""
    outage_rate: float = 0.1
    """The share of verifiers that have an outage of their own, of up to an hour."""
    slow_fetches: bool = True
    """Whether a fetch may take as long as the verifier's timeout; else it takes no time."""


class Token(Struct, frozen=True):
    """A token. Its times are not truncated to whole seconds, so it lives longest."""

    kid: str
    signer: Replica | None
    """None if it was forged with a stolen key."""
    minted: float
    expires: float
    """``exp``, by the verifier's clock."""


class Check(Struct, frozen=True):
    """One verification of a token."""

    at: float
    token: Token


class Scenario(Struct, frozen=True):
    """A verifier and its checks, in order of time."""

    instance: VerifierInstance
    checks: list[Check]


class Failure(Struct, frozen=True):
    """A wrongly rejected token."""

    at: float
    verifier: str
    kid: str
    trace: list[tuple[float, str]]
    """The events that led to it, with their times, in order."""


class LateAcceptance(Struct):
    """Acceptances of a revoked key by verifiers of one kind. Times in seconds after the revocation."""

    count: int = 0
    latest: float | None = None
    """The last acceptance by a verifier that could fetch."""
    latest_blocked: float | None = None
    """The last acceptance by a verifier that could not fetch."""


class Report(Struct, kw_only=True):
    """The result of a simulation."""

    verifiers: int = 0
    tokens: int = 0
    checks: int = 0
    wrongly_rejected: int = 0
    """The token had not expired, its key was not revoked, and the verifier did not have the key."""
    cut_off: int = 0
    """The same, but the verifier could not fetch, which the policy does not cover for its kind."""
    after_revocation: dict[str, LateAcceptance] = field(default_factory=dict)
    """By the verifier's kind."""
    first_failure: Failure | None = None


class World(Struct, frozen=True, kw_only=True):
    """The simulated keys and replicas of a setup."""

    setup: Setup
    backend: Backend
    replicas: list[Replica]
    outages: tuple[Span, ...]
    end: float

    @property
    def new_keys(self) -> tuple[KeyVersion, ...]:
        """The keys created by rotations."""
        return self.backend.versions[1:]

    def starts(self, version: KeyVersion) -> float:
        """When ``version`` is to start signing, by the backend's clock."""
        return (version.created_at or 0.0) + self.setup.timing.publish_lead

    def replica(self, name: str, *, phase: float, ahead: float, interval: float | None = None) -> Replica:
        """Return another replica of this world; by default it refreshes as late as possible."""
        return replica(
            name,
            self.backend,
            self.setup.timing,
            phase=phase,
            interval=interval or self.setup.policy.refresh,
            ahead=ahead,
        )


def simulate(world: World, rng: Random) -> Report:
    """Simulate ``world``; equal generators give equal worlds and reports."""
    report = Report()
    for scenario in _scenarios(world, rng):
        _play(scenario, world, report)
    return report


# --- the world ---------------------------------------------------------------------------------------


def make_world(setup: Setup, rng: Random) -> World:
    """Return the keys, a lead and a lag apart, and the replicas with random phases and clocks."""
    timing = setup.timing
    every = max(1, timing.publish_lead + timing.retire_lag)
    first = _version("key-1", -float(every))
    backend = Backend((first, *(_version(f"key-{n + 2}", float(n * every)) for n in range(setup.rotations))))
    if setup.revoke:
        backend = Backend(backend.versions, {backend.versions[-1].kid: _revocation(setup, backend)})
    end = float((setup.rotations + 1) * every)
    world = World(
        setup=setup,
        backend=backend,
        replicas=[],
        outages=_outages(setup.outages, end, rng),
        end=end,
    )
    world.replicas.extend(_random_replica(f"replica {n + 1}", world, rng) for n in range(setup.replicas))
    return world


def _version(kid: str, created_at: float) -> KeyVersion:
    jwk = ECPublicJWK(crv="P-256", x="", y="")  # unused
    return KeyVersion(
        kid=kid, algorithm=Algorithm.ES256, public_jwk=jwk, can_sign=True, created_at=created_at
    )


def _revocation(setup: Setup, backend: Backend) -> float:
    """Return a time at which the last key signs and the previous one, still published, can take over."""
    timing, refresh = setup.timing, setup.policy.refresh
    starts = (backend.versions[-1].created_at or 0.0) + timing.publish_lead
    return starts + max(0, timing.retire_lag - refresh - math.ceil(setup.clock_skew)) // 2


def _random_replica(name: str, world: World, rng: Random) -> Replica:
    interval = world.setup.policy.refresh * (_SOONEST_REFRESH + (1 - _SOONEST_REFRESH) * rng.random())
    ahead = rng.random() * world.setup.clock_skew
    return world.replica(name, phase=rng.random() * interval, interval=interval, ahead=ahead)


def _outages(count: int, end: float, rng: Random) -> tuple[Span, ...]:
    begins = sorted(rng.random() * end for _ in range(count))
    return tuple(Span(begin, begin + rng.random() * _LONGEST_OUTAGE) for begin in begins)


# --- scenarios -----------------------------------------------------------------------------------------


def _scenarios(world: World, rng: Random) -> Iterator[Scenario]:
    setup = world.setup
    for verifier in setup.verifiers:
        for key in world.new_keys:
            yield _learns_as_late_as_can_be(key, verifier, world)
            yield _forgets_as_soon_as_can_be(key, verifier, world)
        for kid, revoked in world.backend.withdrawn.items():
            yield _hears_last(kid, revoked, verifier, world, blocked=False)
            yield _hears_last(kid, revoked, verifier, world, blocked=True)
    source = RandomSource(world.replicas, setup.policy.max_age, rng)
    for number in range(setup.population):
        yield _random_scenario(setup.verifiers[number % len(setup.verifiers)], source, world, rng)


def _learns_as_late_as_can_be(key: KeyVersion, verifier: Verifier, world: World) -> Scenario:
    """All terms of the publish lead at once.

    A replica refreshed just before the key was created, and an HTTP cache fetched from it just before it
    refreshed again. Just before the cached copy expired, the verifier requested it; the response took as
    long as the timeout allows, and then the verifier could not fetch until its grace ended. Meanwhile, a
    replica whose clock is ahead signs with the key as early as it may.
    """
    setup, made = world.setup, key.created_at or 0.0
    policy = setup.policy
    publisher = world.replica("replica A", phase=made - _INSTANT, ahead=0)
    asks = made + policy.refresh + policy.max_age - 2 * _INSTANT
    signs = made + max(0, setup.timing.publish_lead - setup.clock_skew)
    signer = world.replica("replica B", phase=signs, ahead=setup.clock_skew)
    bridged = verifier.refetch_cooldown is None and verifier.stale_grace is not None
    instance = _worst_instance(verifier, FixedSource(publisher, policy.max_age), asks, world, blocked=bridged)
    at = max(signs, asks)
    return Scenario(instance, [Check(at, _mint(signer, at, policy.max_ttl))])


def _worst_instance(
    verifier: Verifier, source: Source, asks: float, world: World, *, blocked: bool
) -> VerifierInstance:
    """Return a verifier that fetches once and, if blocked, not again before its grace ends."""
    fetch_time = verifier.fetch_timeout if world.setup.slow_fetches else 0
    patience = math.inf if verifier.stale_grace is None else (verifier.cache_ttl or 0) + verifier.stale_grace
    arrives = asks + fetch_time
    return VerifierInstance(
        profile=verifier,
        source=source,
        ahead=0,
        first_fetch=asks,
        fetch_time=fetch_time,
        outages=(Span(arrives, arrives + patience),) if blocked else (),
    )


def _forgets_as_soon_as_can_be(successor: KeyVersion, verifier: Verifier, world: World) -> Scenario:
    """All terms of the retire lag at once.

    A replica refreshed just before the successor was due, so it signed with the old key for another
    refresh interval; its last token has the longest lifetime. A replica whose clock is ahead drops the
    old key as early as it may, and a verifier whose clock is behind fetches at that time.
    """
    setup, due = world.setup, world.starts(successor)
    signer = world.replica("replica B", phase=due - _INSTANT, ahead=0)
    token = _mint(signer, due + setup.policy.refresh - 2 * _INSTANT, setup.policy.max_ttl)
    drops = due + setup.timing.retire_lag - setup.clock_skew
    publisher = world.replica("replica A", phase=drops, ahead=setup.clock_skew)
    instance = VerifierInstance(
        profile=verifier, source=FixedSource(publisher, 0), ahead=0, first_fetch=drops, fetch_time=0
    )
    last = _dies(token, instance) - _INSTANT
    return Scenario(instance, [Check(last, token)])


def _hears_last(kid: str, revoked: float, verifier: Verifier, world: World, *, blocked: bool) -> Scenario:
    """All terms of the revocation bound at once, for a token forged with the revoked key."""
    policy = world.setup.policy
    publisher = world.replica("replica A", phase=revoked - _INSTANT, ahead=0)
    asks = revoked + policy.refresh + policy.max_age - 2 * _INSTANT
    instance = _worst_instance(verifier, FixedSource(publisher, policy.max_age), asks, world, blocked=blocked)
    token = Token(kid, None, revoked, math.inf)
    ends = asks + instance.fetch_time + (verifier.cache_ttl or 0)
    stale_ends = ends + (verifier.stale_grace or 0)
    moments = [ends - _INSTANT, ends, stale_ends - _INSTANT, stale_ends, stale_ends + policy.max_ttl]
    return Scenario(instance, [Check(at, token) for at in sorted(moments) if at >= asks])


def _random_scenario(verifier: Verifier, source: Source, world: World, rng: Random) -> Scenario:
    setup = world.setup
    outages = world.outages
    if rng.random() < setup.outage_rate:
        outages = tuple(sorted((*outages, *_outages(1, world.end, rng)), key=lambda span: span.begin))
    instance = VerifierInstance(
        profile=verifier,
        source=source,
        ahead=rng.random() * setup.clock_skew,
        first_fetch=-rng.random() * (verifier.cache_ttl or 0),
        fetch_time=rng.random() * verifier.fetch_timeout if setup.slow_fetches else 0,
        outages=outages,
    )
    checks = [check for _ in range(_TOKENS_EACH) for check in _random_token(instance, world, rng)]
    for kid, revoked in world.backend.withdrawn.items():
        checks += _forged_token(kid, revoked, verifier, world, rng)
    checks.sort(key=lambda check: check.at)
    return Scenario(instance, checks)


def _random_token(instance: VerifierInstance, world: World, rng: Random) -> Iterator[Check]:
    """Yield the checks of one token: when it is new, later, and just before it expires."""
    setup = world.setup
    signer = world.replicas[rng.randrange(len(world.replicas))]
    longest = setup.policy.max_ttl
    ttl = longest if rng.random() < 1 / 2 else 1 + rng.randrange(longest)
    token = _mint(signer, _random_moment(world, rng), ttl)
    last = _dies(token, instance) - _INSTANT
    yield Check(token.minted, token)
    yield Check(token.minted + rng.random() * (last - token.minted), token)
    yield Check(last, token)


def _random_moment(world: World, rng: Random) -> float:
    """Return a random mint time, often near a rotation, where it matters."""
    if not world.new_keys or rng.random() < 1 / 2:
        return rng.random() * world.end
    starts = world.starts(world.new_keys[rng.randrange(len(world.new_keys))])
    spread = 2 * (world.setup.policy.refresh + world.setup.clock_skew)
    return max(0.0, starts + (2 * rng.random() - 1) * spread)


def _forged_token(kid: str, revoked: float, verifier: Verifier, world: World, rng: Random) -> Iterator[Check]:
    """Yield checks of a token forged with a stolen key, during and after the time it may be accepted."""
    policy = world.setup.policy
    bound = policy.blocked_revocation_bound(verifier) or policy.revocation_bound(verifier)
    window = 1.5 * (bound.seconds if bound else _LONGEST_OUTAGE)
    token = Token(kid, None, revoked, math.inf)
    yield from (Check(revoked + rng.random() * window, token) for _ in range(_TOKENS_EACH))


def _mint(signer: Replica, now: float, ttl: float) -> Token:
    return Token(signer.at(now).signing, signer, now, now + signer.ahead + ttl)


def _dies(token: Token, instance: VerifierInstance) -> float:
    """Return when ``instance`` starts to reject ``token`` as expired (RFC 7519, section 4.1.4)."""
    return token.expires + instance.profile.leeway - instance.ahead


# --- results -------------------------------------------------------------------------------------------


def _play(scenario: Scenario, world: World, report: Report) -> None:
    instance, cache = scenario.instance, Cache(scenario.instance)
    report.verifiers += 1
    report.tokens += len({id(check.token) for check in scenario.checks})
    for check in scenario.checks:
        if instance.first_fetch <= check.at < _dies(check.token, instance):
            report.checks += 1
            _judge(check, instance, cache, world, report)


def _judge(check: Check, instance: VerifierInstance, cache: Cache, world: World, report: Report) -> None:
    accepted = cache.has(check.token.kid, check.at)
    revoked = world.backend.withdrawn.get(check.token.kid, math.inf)
    if check.at >= revoked:
        if accepted:
            stale = cache.is_stale(check.at)
            _note_late(report, instance.profile.name, check.at - revoked, stale=stale)
    elif accepted:
        return
    elif cache.is_cut_off(check.at):
        report.cut_off += 1
    else:
        report.wrongly_rejected += 1
        if report.first_failure is None or check.at < report.first_failure.at:
            trace = _trace(check, instance, cache, world)
            report.first_failure = Failure(check.at, instance.profile.name, check.token.kid, trace)


def _note_late(report: Report, verifier: str, after: float, *, stale: bool) -> None:
    late = report.after_revocation.setdefault(verifier, LateAcceptance())
    late.count += 1
    if stale:
        late.latest_blocked = max(after, late.latest_blocked or 0.0)
    else:
        late.latest = max(after, late.latest or 0.0)


def _trace(check: Check, instance: VerifierInstance, cache: Cache, world: World) -> list[tuple[float, str]]:
    """Return the events that led to the rejection, in order of time."""
    kid, token, name = check.token.kid, check.token, f"the verifier ({instance.profile.name})"
    events = [*_plan(kid, world), *_publication(kid, cache.publisher), *_fetch(name, cache)]
    for span in instance.outages:
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
    """Yield when the backend creates ``kid``, and when the next key is due to replace it."""
    versions = world.backend.versions
    index = [version.kid for version in versions].index(kid)
    yield versions[index].created_at or 0.0, f"the backend makes {kid}"
    for successor in versions[index + 1 : index + 2]:
        yield world.starts(successor), f"{successor.kid} is due to replace {kid}"


def _publication(kid: str, publisher: Replica) -> Iterator[tuple[float, str]]:
    """Yield when ``publisher`` starts and stops publishing ``kid``."""
    published = False
    for change in publisher.history:
        if (kid in change.kids) != published:
            published = not published
            what = "publishes" if published else "no longer publishes"
            yield change.since, f"{publisher.name} {what} {kid}"


def _fetch(name: str, cache: Cache) -> Iterator[tuple[float, str]]:
    """Yield how the verifier got the JWK Set."""
    source, held = cache.publisher.name, ", ".join(sorted(cache.kids))
    if cache.as_of < cache.requested:
        yield cache.as_of, f"an HTTP cache fetches the JWKS from {source}: {held}"
        source = "the HTTP cache"
    yield cache.requested, f"{name} fetches the JWKS from {source}: {held}"
    if cache.arrived > cache.requested:
        yield cache.arrived, f"the answer arrives at {name}"
