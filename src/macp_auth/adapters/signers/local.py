"""In-memory keys for the signers ephemeral, env-jwk and jwk-file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from macp_auth.adapters import jose
from macp_auth.domain.errors import SignerUnavailable, UnknownKid
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.secret import Secret
from macp_auth.domain.signer import Signer


class LocalKey(Struct, frozen=True):
    """A key version with its private key, if any; can be pickled for a worker process."""

    version: KeyVersion
    private_der: Secret[bytes] | None = None
    """PKCS #8; None for a key that is only published."""

    @classmethod
    def signing(cls, kid: str, key: jose.PrivateKey) -> LocalKey:
        """Return a key version that signs."""
        return cls(key_version(kid, key.public_key(), can_sign=True), Secret(jose.to_der(key)))

    @classmethod
    def published(cls, kid: str, key: jose.PublicKey) -> LocalKey:
        """Return a key version that is published for verification only."""
        return cls(key_version(kid, key, can_sign=False))


def key_version(kid: str, key: jose.PublicKey, *, can_sign: bool) -> KeyVersion:
    """Return the version that publishes ``key``."""
    return KeyVersion(
        kid=kid, algorithm=jose.algorithm_of(key), public_jwk=jose.public_jwk(key), can_sign=can_sign
    )


class InMemorySigner(Signer):
    """Signs with private keys in memory; a subclass loads them."""

    def __init__(self, private: Mapping[str, jose.PrivateKey]) -> None:
        self._private: Mapping[str, jose.PrivateKey] | None = private
        """By kid; None once closed."""

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Sign on the event loop: faster than in a thread for ES256, and no slower for RS256."""
        if self._private is None:
            raise SignerUnavailable("the signer is closed")
        key = self._private.get(kid)
        if key is None:
            raise UnknownKid(kid)
        return jose.sign(key, signing_input)

    async def aclose(self) -> None:
        """Drop the private keys."""
        self._private = None


class LocalSigner(InMemorySigner):
    """Signs with keys that never change. Fails only for an unknown kid, or when closed."""

    def __init__(self, keys: Sequence[LocalKey]) -> None:
        super().__init__(
            {
                key.version.kid: jose.from_der(key.private_der.reveal())
                for key in keys
                if key.private_der is not None
            }
        )
        self._versions = [key.version for key in keys]

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return its versions, in order."""
        return self._versions
