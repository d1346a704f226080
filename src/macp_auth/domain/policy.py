"""The publish lead, retire lag and revocation bound that verifiers need.

Each is a sum of named terms in seconds. The behaviour of the verifiers is taken from their source code
or measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from macp_auth.domain.rotation import Timing

_QUARTER_HOUR = 900


class Verifier(Struct, frozen=True, kw_only=True):
    """How one kind of verifier caches the published keys. All times in seconds."""

    name: str
    cache_ttl: int | None
    """How long it uses a fetched JWK Set; None if until it sees an unknown kid."""
    stale_grace: int | None = 0
    """How much longer it uses the set while it can't fetch; None if unbounded."""
    refetch_cooldown: int | None = None
    """Minimum time between fetches for an unknown kid; None if it never fetches for one."""
    fetch_timeout: int = 5
    leeway: int = 60
    """How long after ``exp`` it still accepts a token."""


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
"""The supported verifiers, by name."""


class Term(Struct, frozen=True):
    """One term of a :class:`Sum`."""

    name: str
    seconds: int


class Sum(Struct, frozen=True):
    """A number of seconds and its terms."""

    terms: tuple[Term, ...]

    @property
    def seconds(self) -> int:
        """The sum of the terms."""
        return sum(term.seconds for term in self.terms)

    def __str__(self) -> str:
        return " + ".join(f"{term.seconds} ({term.name})" for term in self.terms) + f" = {self.seconds} s"


class RotationPolicy(Struct, frozen=True, kw_only=True):
    """The settings of the service and its verifier that determine key rotation. All times in seconds."""

    max_ttl: int
    """The longest lifetime of a token."""
    refresh: int
    """How often a replica reads its keys."""
    max_age: int
    """How long an HTTP cache may serve the JWKS."""
    clock_skew: int
    """Maximum difference between two clocks."""
    verifier: Verifier
    """The verifier that needs the most time."""
    publish_lead: int | None = None
    """Set by the operator; None for what the verifier needs."""
    retire_lag: int | None = None
    """Set by the operator; None for what the verifier needs."""

    @property
    def timing(self) -> Timing:
        """The effective lead and lag.

        The default lead is what the verifier needs, rounded up to a quarter of an hour, because its terms
        are estimates. The default lag is exact: its terms are this service's own settings.
        """
        needed = self.needed_lead(self.verifier).seconds
        lead = -(-needed // _QUARTER_HOUR) * _QUARTER_HOUR if self.publish_lead is None else self.publish_lead
        lag = self.needed_lag(self.verifier).seconds if self.retire_lag is None else self.retire_lag
        return Timing(publish_lead=lead, retire_lag=lag)

    def needed_lead(self, verifier: Verifier) -> Sum:
        """How long a key must be published before its first signature for ``verifier`` to have it.

        A verifier that fetches for an unknown kid needs only its cooldown. An unbounded grace is not
        counted: such a verifier gets the key as soon as it can fetch again.
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
        """How long a key must stay published after its last signature: until all its tokens have expired."""
        return Sum(
            (
                Term("longest token TTL", self.max_ttl),
                Term("verifier leeway", verifier.leeway),
                Term("clock skew", self.clock_skew),
                Term("replica refresh", self.refresh),
            )
        )

    def revocation_bound(self, verifier: Verifier) -> Sum | None:
        """Upper bound on how long ``verifier`` accepts a removed key, if it can fetch; None if unbounded."""
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
        """The same, if an attacker blocks its fetches; None if unbounded."""
        bound = self.revocation_bound(verifier)
        if bound is None or verifier.stale_grace is None:
            return None
        return Sum((*bound.terms, Term("stale grace", verifier.stale_grace)))

    def contradictions(self) -> Sequence[tuple[str, Sum]]:
        """The configured values that are too small, each with the sum that it must reach."""
        found = []
        for name, value, needed in (
            ("publish_lead", self.publish_lead, self.needed_lead(self.verifier)),
            ("retire_lag", self.retire_lag, self.needed_lag(self.verifier)),
        ):
            if value is not None and value < needed.seconds:
                found.append((name, needed))
        return found
