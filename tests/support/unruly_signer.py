"""A plugin that prints wherever it is called; and at one place it does more.

The place is in the file ``unruly`` in its home: at its import, a plugin has no variables of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from macp_auth import Finding, KeyVersion, SignerPlugin, hookimpl
from macp_auth.adapters.signers.ephemeral import EphemeralSettings, prepare
from macp_auth.adapters.signers.local import LocalSigner


def act(place: str) -> None:
    """Print in three ways; then exit, or wait, if it is the place for it."""
    print(f"print in {place}", flush=True)  # noqa: T201 - what a careless plugin does
    os.write(1, f"write in {place}\n".encode())
    order = Path(os.environ["HOME"], "unruly")
    if not order.exists() or order.read_text().split()[0] != place:
        return
    if waiting := order.read_text().split()[1:]:
        Path(waiting[0]).touch()
        while True:
            time.sleep(0.1)
    sys.exit(0)


class UnrulySettings(EphemeralSettings, frozen=True):
    """Those of the ephemeral signer."""

    def __post_init__(self) -> None:
        """Print."""
        act("settings")


class UnrulySigner(LocalSigner):
    """Signs well."""

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Print, and have a child print."""
        act("key_versions")
        subprocess.run(["/bin/echo", "a child"], check=True)  # noqa: ASYNC221 - a plugin's own affair
        return await super().key_versions()

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Print."""
        act("sign")
        return await super().sign(kid, signing_input)


def prepare_unruly(settings: EphemeralSettings) -> object:
    """Print."""
    act("prepare")
    return prepare(settings)


def diagnose(*_: object) -> Iterator[Finding]:
    """Find nothing."""
    act("diagnose")
    return iter(())


@hookimpl
def macp_auth_signer() -> SignerPlugin:
    """Register the signer."""
    act("hook")
    return SignerPlugin(
        name="unruly",
        api_version=1,
        settings=UnrulySettings,
        settings_prefix="MACP_AUTH_UNRULY_",
        prepare=prepare_unruly,
        open=UnrulySigner,
        diagnose=diagnose,
    )


act("import")
