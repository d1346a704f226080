"""The times of a drill: the configured ones, and those of the real verifiers."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from macp_auth.domain.policy import RotationPolicy, Verifier


class Scenario(Struct, frozen=True, kw_only=True):
    """All times in seconds, shortened so that a key is published, signs and leaves in some 20 s."""

    cache_ttl: int = 1
    """How long the verifiers really use a fetched JWK Set."""
    stale_grace: int = 1
    """How much longer those with a grace really do while they can't fetch."""
    leeway: int = 1
    """Of each verifier; Envoy has no less."""
    claimed_cache_ttl: int | None = None
    """The configured lifetime of their caches; None for the real one."""
    claimed_stale_grace: int | None = None
    max_ttl: int = 8
    refresh: int = 1
    max_age: int = 1
    clock_skew: int = 0
    """There is one clock."""

    @property
    def claimed(self) -> RotationPolicy:
        """The policy of the configured times, with the least lead and lag that are allowed."""
        return self._policy(
            self.cache_ttl if self.claimed_cache_ttl is None else self.claimed_cache_ttl,
            self.stale_grace if self.claimed_stale_grace is None else self.claimed_stale_grace,
        )

    @property
    def lead(self) -> int:
        return self.claimed.needed_lead(self.claimed.verifier).seconds

    @property
    def lag(self) -> int:
        return self.claimed.needed_lag(self.claimed.verifier).seconds

    @property
    def fetch_bound(self) -> int:
        """How soon after a change every verifier that can fetch must have seen it: the revocation bound."""
        truth = self._policy(self.cache_ttl, self.stale_grace)
        bound = truth.revocation_bound(truth.verifier)
        assert bound is not None
        return bound.seconds

    def environment(self, keys_file: Path) -> dict[str, str]:
        """The service's settings."""
        policy = self.claimed
        settings = {
            "MAX_TTL_SECONDS": policy.max_ttl,
            "DEFAULT_TTL_SECONDS": policy.max_ttl,
            "KEY_REFRESH_SECONDS": policy.refresh,
            "JWKS_MAX_AGE_SECONDS": policy.max_age,
            "CLOCK_SKEW_SECONDS": policy.clock_skew,
            "VERIFIER_CACHE_TTL_SECONDS": policy.verifier.cache_ttl,
            "VERIFIER_STALE_GRACE_SECONDS": policy.verifier.stale_grace,
            "VERIFIER_LEEWAY_SECONDS": policy.verifier.leeway,
            "KEY_PUBLISH_LEAD_SECONDS": self.lead,
            "KEY_RETIRE_LAG_SECONDS": self.lag,
            "WORKERS": 2,  # two replicas, which read the keys at different moments
            "SIGNER": "jwk-file",
            "SIGNING_KEYS_FILE": keys_file,
        }
        return {f"MACP_AUTH_{name}": str(value) for name, value in settings.items()}

    def _policy(self, cache_ttl: int, stale_grace: int) -> RotationPolicy:
        return RotationPolicy(
            max_ttl=self.max_ttl,
            refresh=self.refresh,
            max_age=self.max_age,
            clock_skew=self.clock_skew,
            verifier=Verifier(name="drill", cache_ttl=cache_ttl, stale_grace=stale_grace, leeway=self.leeway),
        )
