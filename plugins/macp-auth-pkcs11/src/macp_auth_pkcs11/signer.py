"""The signer port, on one token and one thread."""

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
    """A token and its thread. Signers of one process share it: a library knows one login a process."""

    _open: ClassVar[dict[tuple[int, PKCS11Settings], Backend]] = {}

    def __init__(self, settings: PKCS11Settings) -> None:
        self.device = Device(settings)
        # C_Initialize without arguments promises the library that one thread at a time calls it, and SoftHSM
        # 2.6.1 crashes where two do.
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
        """Return the one for ``settings``, for one user more. A forked process gets one of its own."""
        backend = cls._open.setdefault((os.getpid(), settings), cls(settings))
        backend.users += 1
        return backend

    async def release(self) -> None:
        """Take one user off, and close after the last."""
        self.users -= 1
        if not self.users:
            for key in [key for key, backend in self._open.items() if backend is self]:
                del self._open[key]
            await self.thread.aclose()


class PKCS11Signer(Signer):
    """Signs with the private keys of one token. Opens it at the first call, in the process that calls."""

    def __init__(self, settings: PKCS11Settings) -> None:
        self._backend = Backend.acquire(settings)
        self._closed = False

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Read the token again, and test each key with a signature."""
        return await self._run(self._backend.device.key_versions)

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Have the token sign the SHA-256 of ``signing_input``."""
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
