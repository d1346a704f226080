"""The signer port over Cloud KMS: blocking calls run in threads, with limits of their number and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from macp_auth import BoundedThreadPool, KeyVersion, Signer, SignerRefused, SignerUnavailable, UnknownKid
from macp_auth_gcp_kms.errors import WITHDRAWN
from macp_auth_gcp_kms.kms import KMS, Key

T = TypeVar("T")
MAX_CALLS = 64
"""Concurrent signatures: they share one HTTP/2 connection, and Google's servers take 100 calls on each."""
_READS = 2
"""Concurrent reads of the keys: one that hangs must not delay the next."""
_MAX_READS_WAITING = 16
_READ_SECONDS = 9.0
"""Less than the 10 s of the host, so that the error names Cloud KMS."""


class GCPKMSSigner(Signer):
    """Signs with the key versions that were enabled at the last read.

    Args:
        key: the resource name of the CryptoKey.
        endpoint: URL; None for Google's default.
        timeout: time limit of a signature in seconds.
    """

    def __init__(self, key: str, *, endpoint: str | None, timeout: float) -> None:
        self._kms = KMS(key, endpoint=endpoint, timeout=timeout)
        self._timeout = timeout
        self._signatures = BoundedThreadPool(
            "gcp-kms", threads=MAX_CALLS, when_full=f"{MAX_CALLS} signatures are in progress"
        )
        # A separate pool, so that signatures do not delay reads of the keys.
        self._reads = BoundedThreadPool(
            "gcp-kms",
            threads=_READS,
            max_waiting=_MAX_READS_WAITING,
            when_full="too many reads of the keys wait for Cloud KMS",
        )
        self._keys: dict[str, Key] = {}

    async def key_versions(self) -> Sequence[KeyVersion]:
        """List the versions again; one that is no longer enabled can't sign any more."""
        keys = await _within(_READ_SECONDS, self._reads, self._kms.keys)
        self._keys = {key.version.kid: key for key in keys}
        return [key.version for key in keys]

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Sign with Cloud KMS.

        Raises:
            UnknownKid: there is no such version, or it was disabled after the last read.
            SignerUnavailable: no answer in time, or too many concurrent signatures.
            SignerRefused: Cloud KMS refused.
        """
        return await _within(self._timeout, self._signatures, partial(self._sign, kid, signing_input))

    def _sign(self, kid: str, signing_input: bytes) -> bytes:
        key = self._keys.get(kid)
        if key is None:
            raise UnknownKid(kid)
        try:
            return self._kms.sign(key, signing_input)
        except SignerRefused as error:
            if error.reason in WITHDRAWN:  # since the last read; UnknownKid makes the host read again
                raise UnknownKid(kid) from error
            raise

    async def aclose(self) -> None:
        """Fail the calls in progress; closing the connection ends their threads."""
        await self._signatures.aclose(grace_seconds=0)
        await self._reads.aclose(grace_seconds=0)
        self._kms.close()


async def _within(seconds: float, threads: BoundedThreadPool, call: Callable[[], T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await threads.run(call)
    except TimeoutError:
        raise SignerUnavailable(f"Cloud KMS did not answer within {seconds:g} s", reason="timeout") from None
