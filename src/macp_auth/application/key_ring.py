"""Signs with the key in force, and reads from the signer which one that is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from macp_auth.domain.claims import Claims
from macp_auth.domain.encoding import base64url_bytes
from macp_auth.domain.errors import SignerUnavailable, UnknownKid, WrongSignature
from macp_auth.domain.key_set import KeySet, SigningKey
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.minting import MintedToken
from macp_auth.domain.rotation import Schedule, Timing, schedule
from macp_auth.domain.signer import Signer


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
        self.withdrawn = asyncio.Event()
        """Set when the signer has no longer the version in force, or another key for it."""

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

    async def self_test(self, claims: Claims) -> None:
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
                self.withdrawn.set()
            raise

    async def aclose(self) -> None:
        """Close the signer."""
        await self._signer.aclose()
