"""Checks every signature that was not made by our own code in this process.

A backend behind a network, or a plugin, may sign with another version than it was asked for, in
another encoding, or not at all. A verifier would find out minutes later and far away; this finds
out before the token leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from macp_auth.adapters import jose
from macp_auth.domain.errors import SignerMisconfigured, UnknownKid, WrongSignature
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.signer import Signer


class VerifyingSigner(Signer):
    """Wraps a signer; passes on only what the key that it published verifies."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._public: dict[str, jose.PublicKey] = {}

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return the wrapped signer's versions, and keep their public keys to verify with."""
        versions = await self._signer.key_versions()
        self._public = {version.kid: _public_key(version) for version in versions}
        return versions

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the wrapped signer's signature.

        Raises:
            WrongSignature: the key published as ``kid`` does not verify it.
        """
        public = self._public.get(kid)
        if public is None:
            raise UnknownKid(kid)
        signature = await self._signer.sign(kid, signing_input)
        if not isinstance(signature, bytes) or not jose.verifies(public, signing_input, signature):
            raise WrongSignature(f"the signer's signature does not verify with the key published as {kid!r}")
        return signature

    async def aclose(self) -> None:
        """Close the wrapped signer."""
        await self._signer.aclose()


def _public_key(version: KeyVersion) -> jose.PublicKey:
    try:
        key = jose.load({**msgspec.to_builtins(version.public_jwk), "alg": version.algorithm.value})
    except jose.InvalidJWK as error:
        raise SignerMisconfigured(f"the signer publishes a bad key as {version.kid!r}: {error}") from None
    assert isinstance(key, jose.PublicKey)  # noqa: S101 - a PublicJWK has no private member
    return key
