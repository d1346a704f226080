"""A model of the MACP runtime: python -m tools.drill.judges.macp_runtime_model URL CACHE_TTL GRACE LEEWAY.

As the runtime does, it uses a fetched JWK Set for a fixed time, never fetches for a kid that it does not
know, tries every cached key, gives a fetch 5 s, and while it can't fetch uses what it has for a grace.
``tests/runtime`` compares it with the real one.
"""

from __future__ import annotations

import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

from macp_auth.entrypoints.cli.runtime_keys import PublishedKey, read_jwks
from macp_auth.entrypoints.cli.verification import Expected, judge, runtime_accepts
from tools.drill.judges.protocol import AUDIENCE, ISSUER, judge_each, serve

FETCH_SECONDS = 5
STALE_GRACE_SECONDS = 3600
"""The real one's; a drill may shorten its model's."""
_NO_KEYS = (OSError, http.client.HTTPException, ValueError)


class Model:
    """The runtime's resolver of JWTs. Times in seconds."""

    def __init__(self, url: str, *, cache_ttl: float, stale_grace: float, leeway: int) -> None:
        self._url = url
        self._ttl = cache_ttl
        self._grace = stale_grace
        self._expected = Expected(issuer=ISSUER, audience=AUDIENCE, leeway=leeway)
        self._keys: Sequence[PublishedKey] = []
        self._age_from: float | None = None

    def refusal(self, token: str) -> str | None:
        """Why it refuses the token; None if it accepts it."""
        try:
            keys = self._current_keys()
        except _NO_KEYS as error:
            return f"no keys: {error}"
        findings = judge(token, keys, self._expected, time.time())
        if runtime_accepts(findings):
            return None
        return "; ".join(f"{found.check}: {found.found}" for found in findings if not found.good)

    def _current_keys(self) -> Sequence[PublishedKey]:
        """The keys to try; an error if they can't be fetched and are too old to go on with."""
        age = float("inf") if self._age_from is None else time.monotonic() - self._age_from
        if age >= self._ttl:
            try:
                self._fetch()
            except _NO_KEYS:
                if age >= self._ttl + self._grace:
                    raise
        return self._keys

    def _fetch(self) -> None:
        try:
            answer = urllib.request.urlopen(self._url, timeout=FETCH_SECONDS)
        except urllib.error.HTTPError as error:
            answer = error  # it reads the body, whatever the status
        with answer:
            self._keys = read_jwks(answer.read())
        self._age_from = time.monotonic()


def main() -> None:
    cache_ttl, stale_grace, leeway = map(int, sys.argv[2:])
    model = Model(sys.argv[1], cache_ttl=cache_ttl, stale_grace=stale_grace, leeway=leeway)
    serve(judge_each(model.refusal))


if __name__ == "__main__":
    main()
