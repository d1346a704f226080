"""The signer port over KMS: blocking calls run in threads, with limits of their number and time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from macp_auth import BoundedThreadPool, KeyVersion, Signer, SignerRefused, SignerUnavailable, UnknownKid
from macp_auth_aws_kms.errors import WITHDRAWN
from macp_auth_aws_kms.kms import KMS, Key

T = TypeVar("T")
_CALLS_PER_KEY = 2
_READS = 2
"""Concurrent reads of the keys: one that hangs must not delay the next."""
_MAX_READS_WAITING = 16


class AWSKMSSigner(Signer):
    """Signs with the keys that were enabled at the last read.

    Args:
        names: key ids, key ARNs or aliases.
        region: None for boto3's default.
        endpoint_url: None for boto3's default.
        timeout: time limit of a signature in seconds.
        max_calls: maximum number of concurrent signatures.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        region: str | None,
        endpoint_url: str | None,
        timeout: float,
        max_calls: int,
    ) -> None:
        self._kms = KMS(
            names,
            region=region,
            endpoint_url=endpoint_url,
            timeout=timeout,
            connections=max_calls + _READS,
        )
        self._timeout = timeout
        self._read_timeout = timeout * _CALLS_PER_KEY * len(names)
        self._signatures = BoundedThreadPool(
            "aws-kms",
            threads=max_calls,
            when_full="as many signatures as MACP_AUTH_AWS_KMS_MAX_CALLS are in progress",
        )
        # A separate pool, so that signatures do not delay reads of the keys.
        self._reads = BoundedThreadPool(
            "aws-kms",
            threads=_READS,
            max_waiting=_MAX_READS_WAITING,
            when_full="too many reads of the keys wait for KMS",
        )
        self._keys: dict[str, Key] = {}

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Describe every key again; one that is no longer enabled can't sign any more."""
        keys = await _within(self._read_timeout, self._reads, self._kms.keys)
        self._keys = {key.version.kid: key for key in keys}
        return [key.version for key in keys]

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Sign with KMS.

        Raises:
            UnknownKid: there is no such key, or it was disabled after the last read.
            SignerUnavailable: no answer in time, or too many concurrent signatures.
            SignerRefused: KMS refused.
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
        """Fail the calls in progress; each thread ends within its timeout."""
        await self._signatures.aclose(grace_seconds=0)
        await self._reads.aclose(grace_seconds=0)
        self._kms.close()


async def _within(seconds: float, threads: BoundedThreadPool, call: Callable[[], T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await threads.run(call)
    except TimeoutError:
        raise SignerUnavailable(f"KMS did not answer within {seconds:g} s", reason="timeout") from None
