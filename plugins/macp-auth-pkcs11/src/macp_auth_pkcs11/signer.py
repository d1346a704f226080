"""The signer port, on one token and one thread."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from macp_auth import KeyVersion, Signer
from macp_auth_pkcs11.device import Device
from macp_auth_pkcs11.settings import PKCS11Settings
from macp_auth_pkcs11.worker import Worker


class PKCS11Signer(Signer):
    """Signs with the private keys of one token. Opens it at the first call, in the process that calls."""

    def __init__(self, settings: PKCS11Settings) -> None:
        self._device = Device(settings)
        self._worker = Worker(settings.max_waiting, last=self._device.close)

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Look at the token anew, and let each key prove its public half with a signature."""
        return await self._worker.run(self._device.key_versions)

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Have the token sign the SHA-256 of ``signing_input``."""
        digest = hashlib.sha256(signing_input).digest()
        return await self._worker.run(partial(self._device.sign, kid, digest))

    async def aclose(self) -> None:
        """End the session and the thread."""
        await self._worker.close()
