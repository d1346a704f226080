"""The signer port, with one token."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from macp_auth import KeyVersion, Signer, SignerUnavailable
from macp_auth_pkcs11.device import Device
from macp_auth_pkcs11.settings import PKCS11Settings


class PKCS11Signer(Signer):
    """Signs with the private keys of one token, which is opened on the first call.

    Calls block, one after the other: C_Initialize without arguments promises that one thread at a time calls
    the library, and SoftHSM 2.6.1 crashes with two.
    """

    def __init__(self, settings: PKCS11Settings) -> None:
        self._device = Device(settings)
        self._closed = False

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Read the token again, and test each key with a signature."""
        return self._open_device().key_versions()

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Sign the SHA-256 digest of ``signing_input`` with the token."""
        return self._open_device().sign(kid, hashlib.sha256(signing_input).digest())

    async def aclose(self) -> None:
        """End the session."""
        self._closed = True
        self._device.close()

    def _open_device(self) -> Device:
        if self._closed:
            raise SignerUnavailable("the signer is closed", reason="closed")
        return self._device
