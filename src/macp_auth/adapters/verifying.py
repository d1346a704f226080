"""Verifies every key and signature that does not come from this process.

A remote backend or a plugin may sign with the wrong version, in the wrong encoding, or not at all; it may
offer an invalid key, or a private one. Verifiers would notice that minutes later; this detects it before
anything is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import structlog

from macp_auth.adapters import jose
from macp_auth.adapters.well_formed import bad_offer, well_formed_versions
from macp_auth.adapters.wrapper import SignerWrapper
from macp_auth.domain.errors import SignerMisconfigured, UnknownKid, WrongSignature
from macp_auth.domain.keys import Algorithm, KeyVersion, PublicJWK
from macp_auth.domain.signer import Signer
from macp_auth.domain.statistics import Statistics

_VERSIONS_A_TURN = 50  # a key takes about 50 us to check, and the event loop has other work
_log = structlog.get_logger()


class VerifyingSigner(SignerWrapper):
    """Wraps a signer; passes on only valid keys, and only signatures that its published keys verify.

    Args:
        signer: the signer to wrap.
        name: its name in messages.
    """

    def __init__(self, signer: Signer, name: str) -> None:
        super().__init__(signer)
        self._name = name
        self._public: dict[str, jose.PublicKey] = {}
        self._checked: dict[tuple[PublicJWK, Algorithm], jose.PublicKey] = {}  # in the last reading
        self._jwks: dict[str, PublicJWK] = {}  # of each kid ever published
        self._kids: dict[PublicJWK, str] = {}  # in the last reading
        self._unusable: dict[str, str] = {}  # why a version was omitted in the last reading, by kid

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return the wrapped signer's versions, and keep their public keys to verify signatures.

        A version that no verifier would accept (a key that is too short, for example) is omitted and logged,
        so that it does not stop the others.

        Raises:
            SignerMisconfigured: there are too many versions, or no usable one; or one is malformed, contains
                more than a public key, or has the kid or the key of another version.
        """
        offered = well_formed_versions(await super().key_versions(), self._name)
        good: list[KeyVersion] = []
        public: dict[str, jose.PublicKey] = {}
        checked: dict[tuple[PublicJWK, Algorithm], jose.PublicKey] = {}
        kids: dict[PublicJWK, str] = {}
        unusable: dict[str, str] = {}
        for number, version in enumerate(offered):
            if number % _VERSIONS_A_TURN == _VERSIONS_A_TURN - 1:
                await asyncio.sleep(0)
            try:
                key = self._public_key(version)
            except jose.InvalidJWK as error:
                unusable[version.kid] = str(error)
            else:
                self._check_names(version, kids.setdefault(version.public_jwk, version.kid))
                good.append(version)
                public[version.kid] = checked[version.public_jwk, version.algorithm] = key
        self._report(unusable)
        if unusable and not good:
            kid, fault = next(iter(unusable.items()))
            raise self._bad(f"a bad key as {kid!r}: {fault}")
        # Only now: a rejected reading must not affect a valid one.
        self._public, self._checked, self._kids = public, checked, kids
        self._jwks.update((kid, jwk) for jwk, kid in kids.items())
        return good

    def statistics(self) -> Statistics:
        """Return the wrapped signer's numbers and the number of omitted key versions."""
        return {**super().statistics(), "unusable_keys": len(self._unusable)}

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
            raise WrongSignature(
                f"the signature of the signer {self._name!r} does not verify with its published key {kid!r}"
            )
        return signature

    def _public_key(self, version: KeyVersion) -> jose.PublicKey:
        if (known := self._checked.get((version.public_jwk, version.algorithm))) is not None:
            return known
        key = jose.load({**msgspec.to_builtins(version.public_jwk), "alg": version.algorithm.value})
        assert isinstance(key, jose.PublicKey)  # noqa: S101 - a PublicJWK has no private member
        return key

    def _check_names(self, version: KeyVersion, first: str) -> None:
        """Check that each kid has one key and each key one kid: verifiers look up a cached key by its kid.

        ``first`` is the first kid of the key in this reading.
        """
        kid, jwk = version.kid, version.public_jwk
        if self._jwks.get(kid, jwk) != jwk:
            raise self._bad(f"the kid {kid!r} for another key than before; a kid is never reused")
        if (known := self._kids.get(jwk, first)) != kid:
            raise self._bad(f"the key {known!r} as {kid!r}; a key keeps its kid")

    def _report(self, unusable: dict[str, str]) -> None:
        for kid, fault in unusable.items():
            if self._unusable.get(kid) != fault:
                _log.error("unusable key not published", signer=self._name, kid=kid, detail=fault)
        self._unusable = unusable

    def _bad(self, offer: str) -> SignerMisconfigured:
        return bad_offer(self._name, offer)
