"""Independent judges of our tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import joserfc.jwt
import jwt
from joserfc.jwk import KeySet


def verify_with_pyjwt(
    token: str, jwks: Mapping[str, Any], *, issuer: str = "macp-auth-service", audience: str = "macp-runtime"
) -> dict[str, Any]:
    kid = jwt.get_unverified_header(token)["kid"]
    key = jwt.PyJWKSet.from_dict(dict(jwks))[kid]
    claims: dict[str, Any] = jwt.decode(
        token, key, algorithms=[key.algorithm_name], issuer=issuer, audience=audience
    )
    return claims


def verify_minted(token: str, jwks: Mapping[str, Any], asked_at: float) -> dict[str, Any]:
    """The claims of a token that was asked for at ``asked_at``, whose end may have come meanwhile.

    A token of one second lives until the next second begins, and a busy machine takes longer to check.
    """
    kid = jwt.get_unverified_header(token)["kid"]
    key = jwt.PyJWKSet.from_dict(dict(jwks))[kid]
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=[key.algorithm_name],
        issuer="macp-auth-service",
        audience="macp-runtime",
        options={"verify_exp": False},
    )
    assert claims["exp"] > asked_at, "it was over before it was asked for"
    return claims


def verify_with_joserfc(token: str, jwks: Mapping[str, Any]) -> dict[str, Any]:
    keys = KeySet.import_key_set({"keys": list(jwks["keys"])})
    return dict(joserfc.jwt.decode(token, keys, algorithms=["RS256", "ES256"]).claims)
