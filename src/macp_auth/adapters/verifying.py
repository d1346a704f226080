"""Believes nothing that was not made by our own code in this process.

A backend behind a network, or a plugin, may sign with another version than it was asked for, in
another encoding, or not at all; it may offer a key that is none, or a private one. A verifier would
find out minutes later and far away; this finds out before anything leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from macp_auth.adapters import jose
from macp_auth.adapters.wrapper import SignerWrapper
from macp_auth.domain.errors import SignerMisconfigured, UnknownKid, WrongSignature
from macp_auth.domain.keys import ECPublicJWK, KeyVersion, PublicJWK, RSAPublicJWK, is_kid
from macp_auth.domain.signer import Signer


class VerifyingSigner(SignerWrapper):
    """Wraps a signer; passes on only good keys, and only signatures that the keys which it published verify.

    Args:
        signer: the signer to wrap.
        name: what messages call it.
    """

    def __init__(self, signer: Signer, name: str) -> None:
        super().__init__(signer)
        self._name = name
        self._public: dict[str, jose.PublicKey] = {}
        self._seen: dict[str, PublicJWK] = {}

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return the wrapped signer's versions, and keep their public keys to verify with.

        Raises:
            SignerMisconfigured: one could not verify a token, says more than the public, or has the kid
                that another key had before.
        """
        versions = await super().key_versions()
        if not isinstance(versions, Sequence):
            raise SignerMisconfigured(f"the signer {self._name!r} offers no sequence of key versions")
        public = {}
        for version in versions:
            key = self._public_key(version)
            public[version.kid] = key
            # Verifiers that have cached the first would reject every token of the second.
            if self._seen.setdefault(version.kid, version.public_jwk) != version.public_jwk:
                raise self._bad(f"the kid {version.kid!r} for another key than before; a kid is never reused")
        self._public = public
        return versions

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the wrapped signer's signature.

        Raises:
            WrongSignature: the key published as ``kid`` does not verify it.
        """
        public = self._public.get(kid)
        if public is None:
            raise UnknownKid(kid)
        signature = await super().sign(kid, signing_input)
        if not isinstance(signature, bytes) or not jose.verifies(public, signing_input, signature):
            raise WrongSignature(
                f"the signature of the signer {self._name!r} does not verify with its published key {kid!r}"
            )
        return signature

    def _public_key(self, version: KeyVersion) -> jose.PublicKey:
        """Return the key of ``version``, every part of which may come from anywhere."""
        if type(version) is not KeyVersion:
            raise self._bad(f"a {type(version).__name__} for a key version")
        if (kind := type(version.public_jwk)) not in (RSAPublicJWK, ECPublicJWK):
            raise self._bad(f"a {kind.__name__} for a public key: it could hold a private one")
        try:
            # Nothing checks the types of a struct that Python code makes.
            msgspec.convert(msgspec.to_builtins(version), KeyVersion)
            key = jose.load({**msgspec.to_builtins(version.public_jwk), "alg": version.algorithm.value})
        except (TypeError, msgspec.ValidationError):
            raise self._bad("a key version with a part of a wrong type") from None
        except jose.InvalidJWK as error:
            raise self._bad(f"a bad key as {version.kid!r}: {error}") from None
        if not is_kid(version.kid):
            raise self._bad("a key version whose kid is empty, too long, or not all visible")
        times = (version.created_at, version.not_before, version.not_after)
        if not all(time is None or math.isfinite(time) for time in times):
            raise self._bad(f"a time that is no number for {version.kid!r}")
        assert isinstance(key, jose.PublicKey)  # noqa: S101 - a PublicJWK has no private member
        return key

    def _bad(self, offer: str) -> SignerMisconfigured:
        return SignerMisconfigured(f"the signer {self._name!r} offers {offer}")
