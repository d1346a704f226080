"""The signer port, with one token and one thread."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, TypeVar

from macp_auth import BoundedThreadPool, KeyVersion, Signer, SignerUnavailable
from macp_auth_pkcs11.device import Device
from macp_auth_pkcs11.settings import PKCS11Settings

T = TypeVar("T")


class Backend:
    """A token and its thread. The signers of a process share it: a library has one login per process."""

    _open: ClassVar[dict[tuple[int, PKCS11Settings], Backend]] = {}

    def __init__(self, settings: PKCS11Settings) -> None:
        self.device = Device(settings)
        # C_Initialize without arguments promises that one thread at a time calls the library; SoftHSM 2.6.1
        # crashes with two.
        self.thread = BoundedThreadPool(
            "pkcs11",
            threads=1,
            max_waiting=settings.max_waiting,
            when_full=f"{settings.max_waiting} requests wait for the token (MACP_AUTH_PKCS11_MAX_WAITING)",
            at_thread_end=self.device.close,
        )
        self.users = 0

    @classmethod
    def acquire(cls, settings: PKCS11Settings) -> Backend:
        """Return the backend of this process for ``settings``, and count the user."""
        backend = cls._open.setdefault((os.getpid(), settings), cls(settings))
        backend.users += 1
        return backend

    async def release(self) -> None:
        """Close after the last user."""
        self.users -= 1
        if not self.users:
            for key in [key for key, backend in self._open.items() if backend is self]:
                del self._open[key]
            await self.thread.aclose()


class PKCS11Signer(Signer):
    """Signs with the private keys of one token, which is opened on the first call."""

    def __init__(self, settings: PKCS11Settings) -> None:
        self._backend = Backend.acquire(settings)
        self._closed = False

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Read the token again, and test each key with a signature."""
        return await self._run(self._backend.device.key_versions)

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Sign the SHA-256 digest of ``signing_input`` with the token."""
        digest = hashlib.sha256(signing_input).digest()
        return await self._run(partial(self._backend.device.sign, kid, digest))

    async def aclose(self) -> None:
        """End the session and the thread, unless another signer of this process uses them."""
        if not self._closed:
            self._closed = True
            await self._backend.release()

    async def _run(self, call: Callable[[], T]) -> T:
        if self._closed:
            raise SignerUnavailable("the signer is closed", reason="closed")
        return await self._backend.thread.run(call)
