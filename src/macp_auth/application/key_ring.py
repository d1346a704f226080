"""Reads keys from the signer and signs with the active one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from macp_auth.domain.claims import Claims
from macp_auth.domain.encoding import base64url_bytes
from macp_auth.domain.errors import SignerUnavailable, UnknownKid, WrongSignature
from macp_auth.domain.key_set import KeySet, SigningKey
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.minting import MintedToken
from macp_auth.domain.rotation import Lifetime, Schedule, Timing, lifetimes, schedule
from macp_auth.domain.signer import Signer


class KeyRing:
    """Signs claims with the active key. Only this class calls the signer.

    No request waits for a refresh: it signs with the key set that is active when it arrives.
    """

    def __init__(self, signer: Signer, timing: Timing) -> None:
        self._signer = signer
        self._timing = timing
        self._versions: Sequence[KeyVersion] = ()
        self._keys: KeySet | None = None
        self.signed = 0
        """Number of signed tokens: while it grows, signing works."""
        self.withdrawn = asyncio.Event()
        """Set when the signer no longer has the signing version, or has another key for it."""

    @property
    def active(self) -> KeySet | None:
        """The active key set; None before the signer's keys have been read."""
        return self._keys

    @property
    def keys(self) -> KeySet:
        """The active key set.

        Raises:
            SignerUnavailable: the signer's keys have not been read yet.
        """
        if self._keys is None:
            raise SignerUnavailable("the signer's keys have not been read yet")
        return self._keys

    def lifetimes(self, now: float) -> list[Lifetime]:
        """Return when each published key starts signing, stops, and leaves, at ``now``."""
        return lifetimes(self._versions, self._timing, now) if self._versions else []

    async def refresh(self, now: float) -> None:
        """Read the signer's keys and activate the schedule at ``now`` (seconds since the epoch).

        Raises:
            SignerError: they can't be read or used; the last good ones stay active.
        """
        versions = tuple(await self._signer.key_versions())
        self._activate(schedule(versions, self._timing, now))
        self._versions = versions

    def reschedule(self, now: float) -> None:
        """Activate the schedule at ``now`` of the versions that were read last."""
        if self._versions:
            self._activate(schedule(self._versions, self._timing, now))

    def _activate(self, due: Schedule) -> None:
        if self._keys is None or self._keys.schedule != due:
            self._keys = KeySet(due)

    async def sign(self, claims: Claims) -> MintedToken:
        """Return a token that carries ``claims``, signed with the active key.

        Raises:
            InvalidRequest: the claims can't be encoded as a token.
            SignerError: the signer failed.
        """
        key = self.keys.signing  # read once: a refresh may replace the keys meanwhile
        signing_input = key.signing_input(claims.encode())
        signature = await self._sign(key, signing_input)
        self.signed += 1
        token = (signing_input + b"." + base64url_bytes(signature)).decode("ascii")
        return MintedToken(token, key.version.kid, claims)

    async def self_test(self, claims: Claims) -> None:
        """Sign ``claims`` and discard the token, to test the signer.

        Raises:
            SignerError: signing failed, or there is no key. A plugin may raise anything.
        """
        key = self.keys.signing
        await self._sign(key, key.signing_input(claims.encode()))

    async def _sign(self, key: SigningKey, signing_input: bytes) -> bytes:
        try:
            return await self._signer.sign(key.version.kid, signing_input)
        except (UnknownKid, WrongSignature):
            # A call that began before the last refresh may fail for a version that no longer signs.
            if key.version.kid == self.keys.signing.version.kid:
                self.withdrawn.set()
            raise

    async def aclose(self) -> None:
        """Close the signer."""
        await self._signer.aclose()
