"""The signer port over KMS: each blocking call in a thread, their number and their time bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Any, TypeVar

from macp_auth import KeyVersion, Signer, SignerRefused, SignerUnavailable, UnknownKid
from macp_auth_aws_kms.errors import WITHDRAWN
from macp_auth_aws_kms.kms import KMS, Key

T = TypeVar("T")
_CALLS_PER_KEY = 2


class AWSKMSSigner(Signer):
    """Signs with the keys that were enabled when they were last read.

    Args:
        names: key ids, key ARNs or aliases.
        region: None for what boto3 finds.
        endpoint_url: None for what boto3 finds.
        timeout: the most that a signature may take, in seconds.
        max_calls: signatures under way at once.
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
        threads = max_calls + 1  # one to read the keys, whatever is being signed
        self._kms = KMS(names, region=region, endpoint_url=endpoint_url, timeout=timeout, connections=threads)
        self._threads: ThreadPoolExecutor | None = ThreadPoolExecutor(threads, "aws-kms")
        self._timeout = timeout
        self._reading_timeout = timeout * _CALLS_PER_KEY * len(names)
        self._free = BoundedSemaphore(max_calls)
        self._waiting: set[asyncio.Future[Any]] = set()
        self._keys: dict[str, Key] = {}

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Describe every key anew; one that is no longer enabled can't sign from here on."""
        keys = await self._result(self._open_threads().submit(self._kms.keys), self._reading_timeout)
        self._keys = {key.version.kid: key for key in keys}
        return [key.version for key in keys]

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Have KMS sign.

        Raises:
            UnknownKid: there is no such key, or it was disabled since it was read.
            SignerUnavailable: no answer in time, or as many signatures as may be are under way.
            SignerRefused: KMS said no.
        """
        threads, key = self._open_threads(), self._keys.get(kid)
        if key is None:
            raise UnknownKid(kid)
        if not self._free.acquire(blocking=False):
            raise SignerUnavailable(
                "as many signatures as MACP_AUTH_AWS_KMS_MAX_CALLS are under way", reason="busy"
            )
        signing = threads.submit(self._kms.sign, key, signing_input)
        # Not when the caller gives up: the thread may still be at it.
        signing.add_done_callback(lambda _: self._free.release())
        try:
            return await self._result(signing, self._timeout)
        except SignerRefused as error:
            if error.reason in WITHDRAWN:  # since the last reading; the host reads again now
                raise UnknownKid(kid) from error
            raise

    async def aclose(self) -> None:
        """Fail the calls under way, and let the threads end: none blocks for longer than its timeout."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
            self._kms.close()
        for waiting in tuple(self._waiting):
            waiting.cancel()

    def _open_threads(self) -> ThreadPoolExecutor:
        if self._threads is None:
            raise _closed()
        return self._threads

    async def _result(self, future: Future[T], seconds: float) -> T:
        waiting = asyncio.wrap_future(future)
        self._waiting.add(waiting)
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            waiting.cancel()  # of no effect on one that has ended
            self._waiting.discard(waiting)
        if not waiting.cancelled():
            return waiting.result()
        if self._threads is None:
            raise _closed()
        raise SignerUnavailable(f"KMS did not answer within {seconds:g} s", reason="timeout")


def _closed() -> SignerUnavailable:
    return SignerUnavailable("the signer is closed", reason="closed")
