"""The keys that are in force: which one signs, and what is published."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from macp_auth.domain.claims import Claims
from macp_auth.domain.encoding import base64url_bytes
from macp_auth.domain.errors import SignerUnavailable, TokenTooLarge, UnknownKid, WrongSignature
from macp_auth.domain.keys import MAX_KID_CHARS, KeyVersion, RSAPublicJWK, jwks_document
from macp_auth.domain.rotation import Schedule, Timing, schedule
from macp_auth.domain.signer import Signer

MAX_TOKEN_BYTES = 8192
"""A token travels as gRPC metadata, whose usual limit for all headers together is 8 KiB."""

_ES256_SIGNATURE_CHARS = 86  # base64url of 64 bytes
_LARGEST_SIGNATURE_CHARS = 1366  # base64url of the 1,024 bytes of RSA with 8,192 bits
_LARGEST_KID = "\U0001f511" * MAX_KID_CHARS  # 4 bytes each in UTF-8, the most that a character takes


def fits_any_key(claims: Claims) -> bool:
    """Whether a token of ``claims`` is within :data:`MAX_TOKEN_BYTES`, whatever key signs it."""
    header, payload = _header("RS256", _LARGEST_KID), base64url_bytes(claims.encode())
    return len(header) + 1 + len(payload) + 1 + _LARGEST_SIGNATURE_CHARS <= MAX_TOKEN_BYTES


def _header(algorithm: str, kid: str) -> bytes:
    return base64url_bytes(msgspec.json.encode({"alg": algorithm, "kid": kid, "typ": "JWT"}))


class MintedToken(msgspec.Struct, frozen=True):
    """A signed token, and what is in it."""

    token: str
    """In JWS compact serialization (RFC 7515, section 7.1). A credential."""
    kid: str
    claims: Claims

    def __repr__(self) -> str:
        return f"MintedToken(kid={self.kid!r})"  # a credential is in no log


class SigningKey:
    """The version that signs now, with all of a token that does not change from one to the next."""

    __slots__ = ("_header", "_signature_chars", "version")

    def __init__(self, version: KeyVersion) -> None:
        self.version = version
        self._header = _header(version.algorithm.value, version.kid) + b"."
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
    """What is in force: the version that signs, and the JWKS that publishes it. Immutable; replaced whole."""

    __slots__ = ("etag", "jwks", "schedule", "signing")

    def __init__(self, in_force: Schedule) -> None:
        self.schedule = in_force
        self.signing = SigningKey(in_force.signing)
        self.jwks = jwks_document(key.version for key in in_force.keys)
        """The JWK Set, ready to be sent."""
        self.etag = f'"{hashlib.sha256(self.jwks).hexdigest()[:32]}"'
        """Its entity tag (RFC 9110, section 8.8.3): the same on every replica with the same keys."""

    @property
    def states(self) -> dict[str, str]:
        """What each published key is for, by its kid."""
        return {key.version.kid: key.state.value for key in self.schedule.keys}


class KeyRing:
    """Signs claims with the key in force. The one place that talks to the signer.

    No request waits for a refresh: it signs with the key set that is in force when it comes.
    """

    def __init__(self, signer: Signer, timing: Timing) -> None:
        self._signer = signer
        self._timing = timing
        self._versions: Sequence[KeyVersion] = ()
        self._keys: KeySet | None = None
        self.signed = 0
        """How many tokens were signed: while it grows, signing works."""
        self.on_withdrawn: Callable[[], None] = lambda: None
        """Called when the signer has not the version in force any more, or another key for it.

        Must return at once.
        """

    @property
    def in_force(self) -> KeySet | None:
        """The key set in force; None before the signer's keys have been read."""
        return self._keys

    @property
    def keys(self) -> KeySet:
        """The key set in force.

        Raises:
            SignerUnavailable: the signer's keys have not been read yet.
        """
        if self._keys is None:
            raise SignerUnavailable("the signer's keys have not been read yet")
        return self._keys

    async def refresh(self, now: float) -> None:
        """Read the signer's keys, and put in force what is due at ``now`` (seconds since the epoch).

        Raises:
            SignerError: they can't be read, or are no usable set; the last good ones stay.
        """
        versions = tuple(await self._signer.key_versions())
        self._put_in_force(schedule(versions, self._timing, now))
        self._versions = versions

    def reschedule(self, now: float) -> None:
        """Put in force what is due at ``now`` among the versions that were read last."""
        if self._versions:
            self._put_in_force(schedule(self._versions, self._timing, now))

    def _put_in_force(self, due: Schedule) -> None:
        if self._keys is None or self._keys.schedule != due:
            self._keys = KeySet(due)

    async def sign(self, claims: Claims) -> MintedToken:
        """Return a token that carries ``claims``, signed with the key in force.

        Raises:
            InvalidRequest: the claims can't be written as a token.
            SignerError: there is no signature.
        """
        key = self.keys.signing  # once: the ring may be given new keys while the signer works
        signing_input = key.signing_input(claims.encode())
        signature = await self._sign(key, signing_input)
        self.signed += 1
        token = (signing_input + b"." + base64url_bytes(signature)).decode("ascii")
        return MintedToken(token, key.version.kid, claims)

    async def prove(self, claims: Claims) -> None:
        """Have ``claims`` signed as for a token, which is dropped, to see whether the signer signs.

        Raises:
            SignerError: it does not, or there is no key. A signer of another package may raise anything.
        """
        key = self.keys.signing
        await self._sign(key, key.signing_input(claims.encode()))

    async def _sign(self, key: SigningKey, signing_input: bytes) -> bytes:
        try:
            return await self._signer.sign(key.version.kid, signing_input)
        except (UnknownKid, WrongSignature):
            # What began before the last refresh may fail for a version that is out of force by now.
            if key.version.kid == self.keys.signing.version.kid:
                self.on_withdrawn()
            raise

    async def aclose(self) -> None:
        """Close the signer."""
        await self._signer.aclose()
