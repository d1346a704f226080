"""A model of the MACP runtime: python -m tests.drill.judges.macp_runtime JWKS_URL CACHE_TTL GRACE LEEWAY.

As the runtime does, it uses a fetched JWK Set for a fixed time, never fetches for a kid that it does not
know, tries every cached key, gives a fetch 5 s, and while it can't fetch uses what it has for a grace.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from base64 import urlsafe_b64decode

import jwt

from tests.drill.judges.protocol import AUDIENCE, ISSUER, judge_each, serve
from tests.support.runtime import RuntimeRefuses, claims_at_runtime

FETCH_SECONDS = 5


class Cache:
    """The published keys as they were when they were last fetched."""

    def __init__(self, url: str, ttl: float, grace: float) -> None:
        self._url = url
        self._ttl = ttl
        self._grace = grace
        self._keys: list[jwt.PyJWK] = []
        self._age_from: float | None = None

    def keys(self) -> list[jwt.PyJWK]:
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
            document = json.load(answer)
        self._keys = [jwt.PyJWK(jwk) for jwk in document["keys"] if jwk["kty"] in {"RSA", "EC"}]
        self._age_from = time.monotonic()


def signed_by(key: jwt.PyJWK, alg: str, signing_input: bytes, signature: bytes) -> bool:
    """Whether the signature is by ``key``, which is for one algorithm only."""
    return key.algorithm_name == alg and key.Algorithm.verify(signing_input, key.key, signature)


def main() -> None:
    url, ttl, grace, leeway = sys.argv[1], *map(float, sys.argv[2:5])
    cache = Cache(url, ttl, grace)

    def refusal(token: str) -> str | None:
        try:
            keys = cache.keys()
        except OSError as error:
            return f"no keys: {error}"
        signing_input, _, signature = token.rpartition(".")
        alg = json.loads(_decode(signing_input.partition(".")[0]))["alg"]
        if not any(signed_by(key, alg, signing_input.encode(), _decode(signature)) for key in keys):
            return "no cached key verifies it"
        try:
            claims = claims_at_runtime(token)
        except RuntimeRefuses as error:
            return str(error)
        if claims["iss"] != ISSUER or claims["aud"] != AUDIENCE:
            return "wrong issuer or audience"
        return "expired" if claims["exp"] + leeway < time.time() else None

    serve(judge_each(refusal))


def _decode(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


if __name__ == "__main__":
    main()
