"""The signer port over KMS: each blocking call in a thread, their number and their time bounded."""

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
_READINGS = 2
"""How many run at once: one that KMS does not answer must not hold up the next."""
_MAX_READINGS_WAITING = 16


class AWSKMSSigner(Signer):
    """Signs with the keys that were enabled when they were last read.

    Args:
        names: key ids, key ARNs or aliases.
        region: None for what boto3 finds.
        endpoint_url: None for what boto3 finds.
        timeout: the most that a signature may take, in seconds.
        max_calls: signatures in progress at once.
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
            connections=max_calls + _READINGS,
        )
        self._timeout = timeout
        self._reading_timeout = timeout * _CALLS_PER_KEY * len(names)
        self._signatures = BoundedThreadPool(
            "aws-kms",
            threads=max_calls,
            when_full="as many signatures as MACP_AUTH_AWS_KMS_MAX_CALLS are in progress",
        )
        # Threads of their own: the keys are read whatever is being signed.
        self._readings = BoundedThreadPool(
            "aws-kms",
            threads=_READINGS,
            max_waiting=_MAX_READINGS_WAITING,
            when_full="too many readings of the keys wait for KMS",
        )
        self._keys: dict[str, Key] = {}

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Describe every key again; one that is no longer enabled can't sign from here on."""
        keys = await _within(self._reading_timeout, self._readings, self._kms.keys)
        self._keys = {key.version.kid: key for key in keys}
        return [key.version for key in keys]

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Have KMS sign.

        Raises:
            UnknownKid: there is no such key, or it was disabled since it was read.
            SignerUnavailable: no answer in time, or as many signatures as may be are in progress.
            SignerRefused: KMS said no.
        """
        return await _within(self._timeout, self._signatures, partial(self._sign, kid, signing_input))

    def _sign(self, kid: str, signing_input: bytes) -> bytes:
        key = self._keys.get(kid)
        if key is None:
            raise UnknownKid(kid)
        try:
            return self._kms.sign(key, signing_input)
        except SignerRefused as error:
            if error.reason in WITHDRAWN:  # since the last reading; the host reads again now
                raise UnknownKid(kid) from error
            raise

    async def aclose(self) -> None:
        """Fail the calls in progress, and let the threads end: none blocks for longer than its timeout."""
        await self._signatures.aclose(grace_seconds=0)
        await self._readings.aclose(grace_seconds=0)
        self._kms.close()


async def _within(seconds: float, threads: BoundedThreadPool, call: Callable[[], T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await threads.run(call)
    except TimeoutError:
        raise SignerUnavailable(f"KMS did not answer within {seconds:g} s", reason="timeout") from None
