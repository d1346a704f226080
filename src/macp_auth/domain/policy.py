"""How long is long enough: the publish lead, retire lag and revocation bound that verifiers call for.

Each is a sum, and every term has a name, a number of seconds and a source. The caches and reactions
of the verifiers were read in their sources or measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from macp_auth.domain.rotation import Timing

_QUARTER_HOUR = 900


class Verifier(Struct, frozen=True, kw_only=True):
    """How one kind of verifier treats the published keys. All times in seconds."""

    name: str
    cache_ttl: int | None
    """How long it uses a fetched JWK Set; None if until it meets a kid that it does not know."""
    stale_grace: int | None = 0
    """How much longer while it can't fetch; None if without end."""
    refetch_cooldown: int | None = None
    """How soon it may fetch again for a kid that it does not know; None if it never does."""
    fetch_timeout: int = 5
    leeway: int = 60
    """How long past ``exp`` it still accepts a token."""


MACP_RUNTIME = Verifier(name="macp-runtime", cache_ttl=300, stale_grace=3600)
"""MACP_AUTH_JWKS_TTL_SECS is 300 by default; stale keys serve an hour more; a fetch ends after 5 s."""

VERIFIERS = {
    verifier.name: verifier
    for verifier in (
        MACP_RUNTIME,
        Verifier(name="jose", cache_ttl=600, refetch_cooldown=30, leeway=0),
        Verifier(name="pyjwt", cache_ttl=300, refetch_cooldown=30, fetch_timeout=30, leeway=0),
        Verifier(name="envoy", cache_ttl=600, stale_grace=None),
        Verifier(name="istio", cache_ttl=1200, stale_grace=7 * 24 * 3600),
        Verifier(name="go-oidc", cache_ttl=None, refetch_cooldown=0, fetch_timeout=30, leeway=0),
    )
}
"""The verifiers whose behaviour is known, by name."""


class Term(Struct, frozen=True):
    """One summand."""

    name: str
    seconds: int


class Sum(Struct, frozen=True):
    """A number of seconds, and how it comes about."""

    terms: tuple[Term, ...]

    @property
    def seconds(self) -> int:
        """The sum of the terms."""
        return sum(term.seconds for term in self.terms)

    def __str__(self) -> str:
        return " + ".join(f"{term.seconds} ({term.name})" for term in self.terms) + f" = {self.seconds} s"


class RotationPolicy(Struct, frozen=True, kw_only=True):
    """What the service knows of itself and of its verifiers. All times in seconds."""

    max_ttl: int
    """The longest lifetime of a token."""
    refresh: int
    """How often a replica reads its keys."""
    max_age: int
    """How long a cache on the way may serve the JWKS."""
    clock_skew: int
    """How far two clocks may be apart."""
    verifier: Verifier
    """The verifier to wait for."""
    publish_lead: int | None = None
    """Set by the operator; None for what the verifier needs."""
    retire_lag: int | None = None
    """Set by the operator; None for what the verifier needs."""

    @property
    def timing(self) -> Timing:
        """The lead and the lag in force.

        Unset, the lead is what the verifier needs, rounded up to a quarter of an hour: the terms are
        estimates of other people's systems. The lag is exact: its terms are our own.
        """
        needed = self.needed_lead(self.verifier).seconds
        lead = -(-needed // _QUARTER_HOUR) * _QUARTER_HOUR if self.publish_lead is None else self.publish_lead
        lag = self.needed_lag(self.verifier).seconds if self.retire_lag is None else self.retire_lag
        return Timing(publish_lead=lead, retire_lag=lag)

    def needed_lead(self, verifier: Verifier) -> Sum:
        """How long before its first signature a key must be published for ``verifier`` to have it.

        A verifier that fetches for an unknown kid needs only its cooldown. A grace without end can't
        be waited for: such a verifier has the key as soon as it can fetch again.
        """
        waits = (
            (Term("cache TTL", verifier.cache_ttl or 0), Term("stale grace", verifier.stale_grace or 0))
            if verifier.refetch_cooldown is None
            else (Term("refetch cooldown", verifier.refetch_cooldown),)
        )
        return Sum(
            (
                Term("replica refresh", self.refresh),
                Term("max-age", self.max_age),
                *waits,
                Term("fetch timeout", verifier.fetch_timeout),
                Term("clock skew", self.clock_skew),
            )
        )

    def needed_lag(self, verifier: Verifier) -> Sum:
        """How long after its last signature a key must stay published: no token of it may be alive."""
        return Sum(
            (
                Term("longest token TTL", self.max_ttl),
                Term("verifier leeway", verifier.leeway),
                Term("clock skew", self.clock_skew),
                Term("replica refresh", self.refresh),
            )
        )

    def revocation_bound(self, verifier: Verifier) -> Sum | None:
        """How long ``verifier`` may accept a key that was taken out, if it can fetch; None if for ever."""
        if verifier.cache_ttl is None:
            return None
        return Sum(
            (
                Term("replica refresh", self.refresh),
                Term("max-age", self.max_age),
                Term("cache TTL", verifier.cache_ttl),
            )
        )

    def blocked_revocation_bound(self, verifier: Verifier) -> Sum | None:
        """The same, if somebody keeps it from fetching; None if for ever."""
        bound = self.revocation_bound(verifier)
        if bound is None or verifier.stale_grace is None:
            return None
        return Sum((*bound.terms, Term("stale grace", verifier.stale_grace)))

    def contradictions(self) -> Sequence[tuple[str, Sum]]:
        """Which of the operator's own numbers is less than what the others call for, and that sum."""
        found = []
        for name, value, needed in (
            ("publish_lead", self.publish_lead, self.needed_lead(self.verifier)),
            ("retire_lag", self.retire_lag, self.needed_lag(self.verifier)),
        ):
            if value is not None and value < needed.seconds:
                found.append((name, needed))
        return found
