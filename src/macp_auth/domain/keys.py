"""Key versions and their public keys (RFC 7517, RFC 7518, RFC 7638)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec

from macp_auth.domain.encoding import base64url
from macp_auth.domain.visible import is_visible

MAX_KID_CHARS = 256
"""Every token carries a kid; a longer one would leave too little room for claims."""


class Algorithm(StrEnum):
    """The JWS algorithms that the MACP runtime verifies (RFC 7518, section 3.1)."""

    RS256 = "RS256"
    """RSASSA-PKCS1-v1_5 with SHA-256."""
    ES256 = "ES256"
    """ECDSA on P-256 with SHA-256."""


class RSAPublicJWK(msgspec.Struct, frozen=True, tag_field="kty", tag="RSA"):
    """An RSA public key. It has no private members."""

    n: str
    """Modulus, base64url without padding."""
    e: str
    """Exponent, base64url without padding."""


class ECPublicJWK(msgspec.Struct, frozen=True, tag_field="kty", tag="EC"):
    """An elliptic-curve public key. It has no private members."""

    crv: str
    x: str
    """Coordinate, base64url of exactly the curve's width."""
    y: str
    """Coordinate, base64url of exactly the curve's width."""


PublicJWK = RSAPublicJWK | ECPublicJWK


class KeyVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the signing key."""

    kid: str
    """Key id in the token header. Never reused for another key. See :func:`is_kid`."""
    algorithm: Algorithm
    public_jwk: PublicJWK
    can_sign: bool
    """False for a version that is published for verification only."""
    created_at: float | None = None
    """Creation time in seconds since the epoch; None if unknown."""
    not_before: float | None = None
    """Earliest signing time in seconds since the epoch; None to use the publish lead."""
    not_after: float | None = None
    """When it leaves the JWKS, in seconds since the epoch; None to use the retire lag."""


def is_kid(text: str) -> bool:
    """Whether ``text`` is a valid kid: 1 to 256 visible characters, with no leading or trailing space.

    A kid appears in logs, metrics and terminals, and an operator types it to revoke the key.
    """
    return 0 < len(text) <= MAX_KID_CHARS and is_visible(text) and text == text.strip(" ")


def thumbprint(jwk: PublicJWK) -> str:
    """Return the RFC 7638 thumbprint: SHA-256 of the required members in order, base64url, 43 characters."""
    members: dict[str, Any] = msgspec.to_builtins(jwk)
    canonical = msgspec.json.encode(dict(sorted(members.items())))
    return base64url(hashlib.sha256(canonical).digest())


def jwks_document(versions: Iterable[KeyVersion]) -> bytes:
    """Return the JWK Set (RFC 7517, section 5) that publishes ``versions``."""
    return msgspec.json.encode(
        {
            "keys": [
                {
                    **msgspec.to_builtins(version.public_jwk),
                    "kid": version.kid,
                    "alg": version.algorithm.value,
                    "use": "sig",
                }
                for version in versions
            ]
        }
    )
