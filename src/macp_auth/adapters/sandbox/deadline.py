"""Gives every call of a signer a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import structlog

from macp_auth.adapters.wrapper import SignerWrapper
from macp_auth.domain.errors import SignerError, SignerUnavailable
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.signer import Signer

T = TypeVar("T")
_log = structlog.get_logger()


class DeadlineSigner(SignerWrapper):
    """Cancels a call at its deadline, in seconds, and does not wait for the call to end."""

    def __init__(
        self, signer: Signer, name: str, *, sign_seconds: float, read_seconds: float, close_seconds: float
    ) -> None:
        super().__init__(signer)
        self._name = name
        self._sign_seconds = sign_seconds
        self._read_seconds = read_seconds
        self._close_seconds = close_seconds
        self._abandoned: set[asyncio.Task[Any]] = set()  # asyncio keeps only weak references to tasks

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return the wrapped signer's versions.

        Raises:
            SignerUnavailable: not in time.
        """
        return await self._in_time(super().key_versions(), self._read_seconds, "key_versions")

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the wrapped signer's signature.

        Raises:
            SignerUnavailable: not in time.
        """
        return await self._in_time(super().sign(kid, signing_input), self._sign_seconds, "sign")

    async def aclose(self) -> None:
        """Close the wrapped signer; abandon it if that fails, so that the service can end."""
        try:
            await self._in_time(super().aclose(), self._close_seconds, "aclose")
        except SignerError as error:
            _log.warning("the signer did not close", signer=self._name, detail=str(error))

    async def _in_time(self, call: Coroutine[Any, Any, T], seconds: float, operation: str) -> T:
        task = asyncio.create_task(call)
        self._abandoned.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait([task], timeout=seconds)
        finally:
            task.cancel()  # no effect if it has ended
        if not task.done():
            raise SignerUnavailable(
                f"the signer {self._name!r} did not end {operation} within {seconds:g} s", reason="deadline"
            )
        if task.cancelled():
            raise SignerUnavailable(f"the signer {self._name!r} cancelled {operation} by itself")
        return task.result()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio logs an error
