"""A model of the MACP runtime: python -m tools.drill.judges.macp_runtime JWKS_URL CACHE_TTL GRACE LEEWAY.

As the runtime does, it uses a fetched JWK Set for a fixed time, never fetches for a kid that it does not
know, tries every cached key, gives a fetch 5 s, and while it can't fetch uses what it has for a grace.
"""

from __future__ import annotations

import sys
import time
import urllib.request
from collections.abc import Sequence

from macp_auth.entrypoints.cli.runtime_keys import PublishedKey, read_jwks
from macp_auth.entrypoints.cli.verification import Expected, judge, runtime_accepts
from tools.drill.judges.protocol import AUDIENCE, ISSUER, judge_each, serve

FETCH_SECONDS = 5


class Cache:
    """The published keys as they were when they were last fetched."""

    def __init__(self, url: str, ttl: float, grace: float) -> None:
        self._url = url
        self._ttl = ttl
        self._grace = grace
        self._keys: Sequence[PublishedKey] = []
        self._age_from: float | None = None

    def keys(self) -> Sequence[PublishedKey]:
        """The keys to try; OSError if they can't be fetched and are too old to go on with."""
        age = float("inf") if self._age_from is None else time.monotonic() - self._age_from
        if age >= self._ttl:
            try:
                self._fetch()
            except OSError:
                if age >= self._ttl + self._grace:
                    raise
        return self._keys

    def _fetch(self) -> None:
        with urllib.request.urlopen(self._url, timeout=FETCH_SECONDS) as answer:
            self._keys = read_jwks(answer.read())
        self._age_from = time.monotonic()


def main() -> None:
    cache = Cache(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
    expected = Expected(issuer=ISSUER, audience=AUDIENCE, leeway=int(sys.argv[4]))

    def refusal(token: str) -> str | None:
        try:
            keys = cache.keys()
        except OSError as error:
            return f"no keys: {error}"
        findings = judge(token, keys, expected, time.time())
        if runtime_accepts(findings):
            return None
        return "; ".join(f"{found.check}: {found.found}" for found in findings if not found.good)

    serve(judge_each(refusal))


if __name__ == "__main__":
    main()
