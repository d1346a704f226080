"""PyJWT with its own JWKS client: python -m tools.drill.judges.pyjwt_client JWKS_URL CACHE_TTL LEEWAY."""

from __future__ import annotations

import sys

import jwt

from tools.drill.judges.protocol import AUDIENCE, ISSUER, judge_each, serve


def main() -> None:
    url, cache_ttl, leeway = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    client = jwt.PyJWKClient(url, lifespan=cache_ttl, cooldown_duration=cache_ttl, timeout=5)

    def refusal(token: str) -> str | None:
        try:
            key = client.get_signing_key_from_jwt(token)
            jwt.decode(token, key, [key.algorithm_name], issuer=ISSUER, audience=AUDIENCE, leeway=leeway)
        except jwt.PyJWTError as error:
            return f"{type(error).__name__}: {error}"
        return None

    serve(judge_each(refusal))


if __name__ == "__main__":
    main()
