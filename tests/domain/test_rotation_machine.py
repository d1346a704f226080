"""A whole deployment under every order of events: a backend, skewed replicas, caches and verifiers.

The verifiers are as hard to please as the MACP runtime: a fixed cache lifetime, no second fetch for
a kid that they do not know, and a stale set for as long as an outage may last. Time is in whole
seconds and the policy's numbers are small, so that a few steps cross several of its limits. The lead
and the lag are exactly what the policy calls for, and the last tests show that less is not enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from msgspec import Struct
from msgspec.structs import replace

from macp_auth.application.key_ring import KeyRing
from macp_auth.domain.key_changes import UnsafeChange, plan_revocation, plan_rotation
from macp_auth.domain.keys import Algorithm, ECPublicJWK, KeyVersion
from macp_auth.domain.policy import RotationPolicy, Verifier
from macp_auth.domain.rotation import State, Timing, schedule, starts_signing
from macp_auth.domain.signer import Signer

REFRESH, MAX_AGE, SKEW, MAX_TTL = 10, 5, 4, 60
CACHE_TTL, GRACE, FETCH, LEEWAY = 20, 30, 2, 6
POLICY = RotationPolicy(
    max_ttl=MAX_TTL,
    refresh=REFRESH,
    max_age=MAX_AGE,
    clock_skew=SKEW,
    verifier=Verifier(
        name="model", cache_ttl=CACHE_TTL, stale_grace=GRACE, fetch_timeout=FETCH, leeway=LEEWAY
    ),
)
LEAD = POLICY.needed_lead(POLICY.verifier).seconds
LAG = POLICY.needed_lag(POLICY.verifier).seconds
EXACT = Timing(publish_lead=LEAD, retire_lag=LAG)
EPOCH = 1_000_000
PUBLIC = ECPublicJWK(crv="P-256", x="x" * 43, y="y" * 43)


class Token(Struct, frozen=True):
    """What a verifier sees of a token."""

    kid: str
    expires: int
    """By the clock of the replica that minted it."""


class Backend(Signer):
    """The keys as their owner left them."""

    def __init__(self) -> None:
        self.versions: list[KeyVersion] = []

    async def key_versions(self) -> Sequence[KeyVersion]:
        return tuple(self.versions)

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


class Replica:
    """One process of the service: a real key ring, and a clock of its own."""

    def __init__(self, backend: Backend, timing: Timing) -> None:
        self.ring = KeyRing(backend, timing)
        self.ahead = 0
        self.refreshed = 0
        self.read_by_its_clock = 0

    def refresh(self, now: int) -> None:
        self.refreshed = now
        self.read_by_its_clock = now + self.ahead
        finish(self.ring.refresh(self.read_by_its_clock))

    @property
    def signs_with(self) -> KeyVersion:
        return self.ring.keys.schedule.signing

    @property
    def publishes(self) -> frozenset[str]:
        return frozenset(key.version.kid for key in self.ring.keys.schedule.keys)


class Cache:
    """A shared HTTP cache between the verifiers and the service."""

    def __init__(self) -> None:
        self.stored = -math.inf
        self.kids: frozenset[str] = frozenset()

    def get(self, replica: Replica, now: int) -> frozenset[str]:
        if now - self.stored >= MAX_AGE:
            self.stored, self.kids = now, replica.publishes
        return self.kids


class ModelVerifier:
    """The MACP runtime's cache. While it fetches, its requests wait."""

    def __init__(self) -> None:
        self.ahead = 0
        self.kids: frozenset[str] = frozenset()
        self.expires = 0
        self.offline = False
        self.answer: tuple[int, frozenset[str]] | None = None

    @property
    def next_event(self) -> int:
        if self.answer is not None:
            return self.answer[0]
        return self.expires + GRACE if self.offline else self.expires

    def fetch(self, kids: frozenset[str], now: int, takes: int) -> None:
        self.offline = False
        self.answer = (now + takes, kids)

    def finish_fetch(self, now: int) -> None:
        assert self.answer is not None
        self.kids, self.answer, self.expires = self.answer[1], None, now + CACHE_TTL

    def rejects(self, token: Token, now: int) -> bool:
        if self.answer is not None:
            return False
        return now + self.ahead < token.expires + LEEWAY and token.kid not in self.kids

    def has(self, kid: str) -> bool:
        """Also after the fetch in progress."""
        return kid in self.kids and (self.answer is None or kid in self.answer[1])


def finish(work: Coroutine[Any, Any, None]) -> None:
    """Run what never waits, without an event loop."""
    with pytest.raises(StopIteration):
        work.send(None)


class Deployment(RuleBasedStateMachine):
    """One backend, three replicas, a cache and two verifiers."""

    timing = EXACT

    def __init__(self) -> None:
        super().__init__()
        self.now = EPOCH
        self.created = 0
        self.backend = Backend()
        self.replicas = [Replica(self.backend, self.timing) for _ in range(3)]
        self.verifiers = [ModelVerifier() for _ in range(2)]
        self.cache = Cache()
        self.tokens: set[Token] = set()
        self.excused: dict[str, int] = {}
        """Until when a kid may be unknown to verifiers, because a withdrawal made it sign too soon."""
        self.fetches_take = 0
        self.next_replica = 0

    @initialize(backend_ahead=st.integers(0, SKEW), is_a_file=st.booleans())
    def first_key(self, backend_ahead: int, is_a_file: bool) -> None:  # noqa: FBT001 - drawn
        self.backend_ahead = backend_ahead
        self.is_a_file = is_a_file
        self._add(created_at=self._backend_clock, not_before=None)
        for replica in self.replicas:
            replica.refresh(self.now)
        for verifier in self.verifiers:
            verifier.fetch(self.replicas[0].publishes, self.now, 0)
            verifier.finish_fetch(self.now)

    # What the keys' owner does.

    @precondition(lambda self: not self.is_a_file)
    @rule()
    def rotate_in_a_key_service(self) -> None:
        """It knows only the creation times, and rotates on request."""
        self._add(created_at=self._backend_clock, not_before=None)

    @precondition(lambda self: self.is_a_file)
    @rule(later=st.integers(0, 50))
    def rotate_a_key_file(self, later: int) -> None:
        """As ``macp-auth keys rotate`` does, if it does."""
        at = self._backend_clock + self.timing.publish_lead + later
        try:
            plan = plan_rotation(self.backend.versions, self.timing, self._backend_clock, at)
        except UnsafeChange:
            return
        gone = {version.kid for version in plan.gone}
        self.backend.versions = [
            replace(version, not_after=plan.retiring_leaves) if version.kid == plan.retiring.kid else version
            for version in self.backend.versions
            if version.kid not in gone
        ]
        self._add(created_at=self._backend_clock, not_before=plan.signs_from)

    @precondition(lambda self: self.is_a_file)
    @rule()
    def take_out_the_expiry(self) -> None:
        """Of the key that signs: ``macp-auth keys rotate`` asks for that before it rotates one that ends."""
        kid, _ = self._due(self.backend.versions, self._backend_clock)
        self.backend.versions = [
            replace(version, not_after=None) if version.kid == kid else version
            for version in self.backend.versions
        ]

    def _add(self, *, created_at: int, not_before: int | None) -> None:
        self.created += 1
        self.backend.versions.append(
            KeyVersion(
                kid=f"k{self.created}",
                algorithm=Algorithm.ES256,
                public_jwk=PUBLIC,
                can_sign=True,
                created_at=created_at,
                not_before=not_before,
            )
        )

    @property
    def _backend_clock(self) -> int:
        return self.now + self.backend_ahead

    @precondition(lambda self: self._able() > 1)
    @rule(which=st.integers(0, 20), withdrawn=st.booleans())
    def withdraw(self, which: int, withdrawn: bool) -> None:  # noqa: FBT001 - drawn
        """Take a key out, or only its right to sign; another stays able."""
        before = list(self.backend.versions)
        key = before[which % len(before)]
        if not withdrawn and (not key.can_sign or key.not_after is not None):
            return  # a key that only verifies leaves when it expires
        lasting, gone = None, set()
        if withdrawn and self.is_a_file:
            plan = plan_revocation(before, key.kid, self.timing, self._backend_clock)
            lasting, gone = plan.carries_on, {version.kid for version in plan.gone}
        self.backend.versions = [
            replace(
                version,
                can_sign=version.can_sign and version is not key,
                not_after=None if version.kid == lasting else version.not_after,
            )
            for version in before
            if version.kid not in gone and (version is not key or not withdrawn)
        ]
        if withdrawn:
            self.tokens = {token for token in self.tokens if token.kid != key.kid}
        if any(self._due(before, clock)[0] == key.kid for clock in self._clocks()):
            self._excuse(before)

    def _excuse(self, before: Sequence[KeyVersion]) -> None:
        """The keys that verifiers need not have when the signing key goes.

        One of them may have left the JWKS long ago, and nothing but what was withdrawn could tell.
        """
        for clock in self._clocks():
            _, lasting = self._due(before, clock)
            for version in self.backend.versions:
                if version.kid not in lasting or not self._is_everywhere(version.kid):
                    self.excused[version.kid] = self.now + LEAD

    def _is_everywhere(self, kid: str) -> bool:
        return all(replica.publishes >= {kid} for replica in self.replicas) and all(
            verifier.has(kid) for verifier in self.verifiers
        )

    def _due(self, versions: Sequence[KeyVersion], clock: int) -> tuple[str, set[str]]:
        """Which kid signs, and which have been published for the lead and are not about to leave."""
        due = schedule(versions, self.timing, clock)
        leaving = clock + SKEW + REFRESH
        lasting = {
            key.version.kid
            for key in due.keys
            if key.state is State.ACTIVE
            or (key.state is State.DEACTIVATED and (key.next_change or math.inf) > leaving)
        }
        return due.signing.kid, lasting

    def _clocks(self) -> range:
        return range(self.now, self.now + SKEW + 1)

    def _able(self) -> int:
        return sum(version.can_sign for version in self.backend.versions)

    # What time, the network and the clocks do.

    @rule(seconds=st.integers(1, 15))
    def wait(self, seconds: int) -> None:
        self._advance_to(self.now + seconds)

    @rule(seconds=st.integers(15, 300))
    def wait_long(self, seconds: int) -> None:
        self._advance_to(self.now + seconds)

    @rule(which=st.integers(0, 50), offset=st.integers(-SKEW - 1, 1))
    def wait_for_an_instant(self, which: int, offset: int) -> None:
        instants = sorted({i + offset for i in self._instants() if self.now < i + offset < self.now + 400})
        if instants:
            self._advance_to(instants[which % len(instants)])

    def _instants(self) -> Iterator[int]:
        for version in self.backend.versions:
            start = int(starts_signing(version, self.timing))
            yield start
            yield start + self.timing.retire_lag
            if version.not_after is not None:
                yield int(version.not_after)
                yield int(version.not_after) - self.timing.retire_lag
        yield from (verifier.expires + GRACE for verifier in self.verifiers)
        yield from (replica.refreshed + REFRESH for replica in self.replicas)
        yield from (token.expires + LEEWAY for token in self.tokens)

    @rule(which=st.integers(0, 2))
    def refresh(self, which: int) -> None:
        self._refresh(self.replicas[which])

    @rule(which=st.integers(0, 4), ahead=st.integers(0, SKEW))
    def step_a_clock(self, which: int, ahead: int) -> None:
        """No two clocks are further apart than the skew."""
        clocks: list[Replica | ModelVerifier] = [*self.replicas, *self.verifiers]
        clocks[which].ahead = ahead

    @rule(which=st.integers(0, 1))
    def go_offline(self, which: int) -> None:
        """For at most the stale grace after the cached keys expire."""
        self.verifiers[which].offline = True

    @rule(which=st.integers(0, 1))
    def come_online(self, which: int) -> None:
        self.verifiers[which].offline = False
        self._advance_to(self.now)

    @rule(takes=st.integers(0, FETCH), replica=st.integers(0, 2))
    def change_the_network(self, takes: int, replica: int) -> None:
        """From now on, fetches take this long and end at this replica."""
        self.fetches_take, self.next_replica = takes, replica

    @rule(which=st.integers(0, 2), ttl=st.just(MAX_TTL) | st.integers(1, MAX_TTL))
    def mint(self, which: int, ttl: int) -> None:
        replica = self.replicas[which]
        key = replica.signs_with
        assert key.kid in replica.publishes, "signed with an unpublished key"
        assert self._may_sign(replica, key), f"{key.kid} signed inside its lead"
        if any(version.kid == key.kid for version in self.backend.versions):
            self.tokens.add(Token(key.kid, self.now + replica.ahead + ttl))

    def _may_sign(self, replica: Replica, key: KeyVersion) -> bool:
        """Its time has come, or that of no other that this replica knows."""
        clock = replica.read_by_its_clock
        return starts_signing(key, self.timing) <= clock or not any(
            other.can_sign and starts_signing(other, self.timing) <= clock for other in replica.ring._versions
        )

    def _advance_to(self, until: int) -> None:
        while True:
            event = min(
                *(replica.refreshed + REFRESH for replica in self.replicas),
                *(verifier.next_event for verifier in self.verifiers),
            )
            if event > until:
                break
            self.now = max(event, self.now)
            self._one_event()
            self.check()
        self.now = until

    def _one_event(self) -> None:
        for replica in self.replicas:
            if replica.refreshed + REFRESH <= self.now:
                self._refresh(replica)
        for verifier in self.verifiers:
            if verifier.next_event <= self.now:
                if verifier.answer is None:
                    kids = self.cache.get(self.replicas[self.next_replica], self.now)
                    verifier.fetch(kids, self.now, self.fetches_take)
                if verifier.next_event <= self.now:
                    verifier.finish_fetch(self.now)

    def _refresh(self, replica: Replica) -> None:
        before = replica.publishes
        replica.refresh(self.now)
        dropped = before - replica.publishes
        for token in self.tokens:
            assert token.kid not in dropped or self.now >= token.expires + LEEWAY, (
                f"{token.kid} left the JWKS while a token that it signed was alive"
            )

    @invariant()
    def check(self) -> None:
        """No token that anyone may still hold is refused."""
        self.tokens = {token for token in self.tokens if self.now < token.expires + LEEWAY}
        for verifier in self.verifiers:
            for token in self.tokens:
                if verifier.rejects(token, self.now):
                    assert self.now < self.excused.get(token.kid, -1), (
                        f"a live token of {token.kid} is rejected"
                    )

    @invariant()
    def something_is_published(self) -> None:
        for replica in self.replicas:
            if replica.refreshed:
                assert replica.publishes

    @invariant()
    def replicas_agree(self) -> None:
        """At the same time and with the same versions, after any history."""
        if not self.backend.versions:
            return
        for replica in self.replicas:
            if list(replica.ring._versions) == self.backend.versions:
                ring = KeyRing(self.backend, self.timing)
                finish(ring.refresh(replica.read_by_its_clock))
                assert ring.keys.schedule == replica.ring.keys.schedule
                assert ring.keys.etag == replica.ring.keys.etag


TestDeployment = Deployment.TestCase
TestDeployment.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def deployment(timing: Timing) -> Deployment:
    """One to be led step by step, with a key service and clocks that agree."""
    led = Deployment()
    led.timing = timing
    led.replicas = [Replica(led.backend, timing) for _ in led.replicas]
    led.first_key(0, is_a_file=False)
    return led


def newest_use_of_the_oldest_set(timing: Timing) -> None:
    """A key made just after a refresh signs by a fast clock; a verifier has all the delays there are."""
    led = deployment(timing)
    led.wait(1)
    for which in range(3):
        led.refresh(which)
    led.go_offline(1)
    led.change_the_network(takes=FETCH, replica=1)
    led.wait(REFRESH)
    led.rotate_in_a_key_service()
    led.wait(CACHE_TTL - led.now + EPOCH)  # verifier 0 fills the cache, just before the next refresh
    led.wait(MAX_AGE - 1)
    led.come_online(1)
    led.go_offline(1)
    led.wait(FETCH)
    led.go_offline(1)
    led.step_a_clock(0, SKEW)
    led.wait_long(led.verifiers[1].expires + GRACE - 1 - led.now)
    led.refresh(0)
    led.mint(0, MAX_TTL)
    led.check()


def last_use_of_a_replaced_key(timing: Timing) -> None:
    """A slow clock that has just read the keys signs with it for a refresh longer; a fast one drops it."""
    led = deployment(timing)
    led.wait(1)
    led.rotate_in_a_key_service()
    led.wait_long(timing.publish_lead - 1)
    led.refresh(0)
    led.wait(REFRESH - 1)
    led.mint(0, MAX_TTL)
    led.step_a_clock(1, SKEW)
    led.wait_long(MAX_TTL + LEEWAY - 1)
    led.refresh(1)


@pytest.mark.parametrize(
    ("worst_case", "short", "message"),
    [
        (newest_use_of_the_oldest_set, Timing(LEAD - 3, LAG), "a live token of k2 is rejected"),
        (last_use_of_a_replaced_key, Timing(LEAD, LAG - 3), "k1 left the JWKS"),
    ],
)
def test_the_worst_case_needs_all_of_the_lead_and_the_lag(
    worst_case: Callable[[Timing], None], short: Timing, message: str
) -> None:
    """Three seconds less, what whole seconds and open ends take from the worst case, and a token is lost."""
    worst_case(EXACT)
    with pytest.raises(AssertionError, match=message):
        worst_case(short)


def test_a_rotation_after_an_emergency_does_not_displace_the_forced_key() -> None:
    """Found by the machine: the new key's time came before that of a key planned for later."""
    led = deployment(EXACT)
    led.is_a_file = True
    led.rotate_a_key_file(50)
    led.wait_long(30)
    led.withdraw(0, withdrawn=True)
    led.wait(REFRESH)
    led.rotate_a_key_file(0)
    led.wait(REFRESH)
    assert [replica.signs_with.kid for replica in led.replicas] == ["k2"] * 3


def test_a_rotation_in_the_first_key_s_second_does_not_displace_it() -> None:
    """Found by the machine: of two keys with the same time, the second signed until it came."""
    led = deployment(EXACT)
    led.rotate_in_a_key_service()
    led.wait(REFRESH)
    assert [replica.signs_with.kid for replica in led.replicas] == ["k1"] * 3
