"""The keys that are in force: which one signs, and what is published."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from macp_auth.domain.claims import Claims
from macp_auth.domain.encoding import base64url_bytes
from macp_auth.domain.errors import SignerMisconfigured, SignerUnavailable, TokenTooLarge
from macp_auth.domain.keys import KeyVersion, RSAPublicJWK, jwks_document
from macp_auth.domain.signer import Signer

MAX_TOKEN_BYTES = 8192
"""A token travels as gRPC metadata, whose usual limit for all headers together is 8 KiB."""

_ES256_SIGNATURE_CHARS = 86  # base64url of 64 bytes


class SigningKey:
    """The version that signs now, with all of a token that does not change from one to the next."""

    __slots__ = ("_header", "_signature_chars", "version")

    def __init__(self, version: KeyVersion) -> None:
        self.version = version
        header = msgspec.json.encode({"alg": version.algorithm.value, "kid": version.kid, "typ": "JWT"})
        self._header = base64url_bytes(header) + b"."
        # An RSA signature is as long as the modulus, and both are written in base64url.
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
    """What a verifier may need, and the one version that signs. Immutable; replaced whole.

    Args:
        versions: every version that the signer offers, in its order.

    Raises:
        SignerMisconfigured: no version can sign, or two share a kid.
    """

    __slots__ = ("etag", "jwks", "published", "signing")

    def __init__(self, versions: Sequence[KeyVersion]) -> None:
        kids = [version.kid for version in versions]
        if len(set(kids)) < len(kids):
            raise SignerMisconfigured("the signer offers two key versions with the same kid")
        signing = next((version for version in versions if version.can_sign), None)
        if signing is None:
            raise SignerMisconfigured("the signer offers no key version that can sign")
        self.signing = SigningKey(signing)
        self.published = tuple(versions)
        self.jwks = jwks_document(versions)
        """The JWK Set, ready to be sent."""
        self.etag = f'"{hashlib.sha256(self.jwks).hexdigest()[:32]}"'
        """Its entity tag (RFC 9110, section 8.8.3): the same on every replica with the same keys."""


class KeyRing:
    """Signs claims with the key in force. The one place that talks to the signer."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._keys: KeySet | None = None

    @property
    def keys(self) -> KeySet:
        """The key set in force.

        Raises:
            SignerUnavailable: the signer's keys have not been read yet.
        """
        if self._keys is None:
            raise SignerUnavailable("the signer's keys have not been read yet")
        return self._keys

    async def refresh(self) -> None:
        """Read the signer's keys and put them in force, all at once.

        Raises:
            SignerError: they can't be read, or are no usable set; the keys in force stay.
        """
        self._keys = KeySet(await self._signer.key_versions())

    async def sign(self, claims: Claims) -> str:
        """Return the token: header, claims and signature in JWS compact serialization (RFC 7515, 7.1).

        Raises:
            InvalidRequest: the claims can't be written as a token.
            SignerError: there is no signature.
        """
        key = self.keys.signing  # once: the ring may be given new keys while the signer works
        signing_input = key.signing_input(claims.encode())
        signature = await self._signer.sign(key.version.kid, signing_input)
        return (signing_input + b"." + base64url_bytes(signature)).decode("ascii")

    async def aclose(self) -> None:
        """Close the signer."""
        await self._signer.aclose()
