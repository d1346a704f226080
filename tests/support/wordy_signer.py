"""A plugin whose backend fails with a very long text, in an error class of the plugin's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from macp_auth import KeyVersion, Secret, Signer, SignerPlugin, SignerUnavailable, hookimpl

LONG = "\x1b[31m" + "x\n" * 5_000_000


class WordySettings(Struct, frozen=True):
    """What may be set."""

    pin: Secret[str]


class WordyError(SignerUnavailable):
    """Passes by the host's own constructor, and has a reason of its own."""

    def __init__(self, text: str) -> None:
        Exception.__init__(self, text)
        self.reason = "wordy"


class WordySigner(Signer):
    """Has a PIN, and repeats it."""

    def __init__(self, pin: Secret[str]) -> None:
        self._pin = pin

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Fail."""
        await asyncio.sleep(0)
        raise WordyError(f"the PIN {self._pin.reveal()} is refused {LONG}")

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Fail."""
        raise WordyError(f"{kid} {len(signing_input)} {LONG}")

    async def aclose(self) -> None:
        """Fail."""
        raise WordyError(f"{self._pin.reveal()} {LONG}")


@hookimpl
def macp_auth_signer() -> SignerPlugin:
    """Register the signer."""
    return SignerPlugin(
        name="wordy",
        api_version=1,
        settings=WordySettings,
        settings_prefix="MACP_AUTH_WORDY_",
        prepare=lambda settings: settings.pin,
        open=WordySigner,
    )
