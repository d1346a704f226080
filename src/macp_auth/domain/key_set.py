"""The active key set: the signing key and the published JWKS."""

from __future__ import annotations

import hashlib

import msgspec

from macp_auth.domain.claims import Claims
from macp_auth.domain.encoding import base64url_bytes
from macp_auth.domain.errors import TokenTooLarge
from macp_auth.domain.keys import MAX_KID_CHARS, KeyVersion, RSAPublicJWK, jwks_document
from macp_auth.domain.rotation import Schedule

MAX_TOKEN_BYTES = 8192
"""A token travels as gRPC metadata, whose usual limit for all headers together is 8 KiB."""

_ES256_SIGNATURE_CHARS = 86  # base64url of 64 bytes
_LARGEST_SIGNATURE_CHARS = 1366  # base64url of the 1,024 bytes of RSA with 8,192 bits
_LARGEST_KID = "\U0001f511" * MAX_KID_CHARS  # 4 bytes each in UTF-8, the maximum


def fits_any_key(claims: Claims) -> bool:
    """Whether a token of ``claims`` is within :data:`MAX_TOKEN_BYTES`, for any signing key."""
    header, payload = _header("RS256", _LARGEST_KID), base64url_bytes(claims.encode())
    return len(header) + 1 + len(payload) + 1 + _LARGEST_SIGNATURE_CHARS <= MAX_TOKEN_BYTES


def _header(algorithm: str, kid: str) -> bytes:
    return base64url_bytes(msgspec.json.encode({"alg": algorithm, "kid": kid, "typ": "JWT"}))


class SigningKey:
    """The version that signs now, with the constant parts of a token."""

    __slots__ = ("_header", "_signature_chars", "version")

    def __init__(self, version: KeyVersion) -> None:
        self.version = version
        self._header = _header(version.algorithm.value, version.kid) + b"."
        # An RSA signature is as long as the modulus, and both are in base64url.
        jwk = version.public_jwk
        self._signature_chars = len(jwk.n) if isinstance(jwk, RSAPublicJWK) else _ES256_SIGNATURE_CHARS

    def signing_input(self, payload: bytes) -> bytes:
        """Return header, dot, payload: what is signed (RFC 7515, section 5.1).

        Raises:
            TokenTooLarge: with its signature, the token would be over :data:`MAX_TOKEN_BYTES`.
        """
        signing_input = self._header + base64url_bytes(payload)
        if (size := len(signing_input) + 1 + self._signature_chars) > MAX_TOKEN_BYTES:
            raise TokenTooLarge(f"token would be {size} bytes; the limit is {MAX_TOKEN_BYTES}")
        return signing_input


class KeySet:
    """The signing version and the JWKS that publishes it. Immutable."""

    __slots__ = ("etag", "jwks", "schedule", "signing")

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.signing = SigningKey(schedule.signing)
        self.jwks = jwks_document(key.version for key in schedule.keys)
        """The encoded JWK Set."""
        self.etag = f'"{hashlib.sha256(self.jwks).hexdigest()[:32]}"'
        """Its entity tag (RFC 9110, section 8.8.3): equal on all replicas with the same keys."""

    @property
    def states(self) -> dict[str, str]:
        """The state of each published key, by kid."""
        return {key.version.kid: key.state.value for key in self.schedule.keys}
