"""What a plugin author provides: the plugin, its settings, and what can be done to its backend."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from macp_auth.adapters.hookspecs import SignerPlugin
from macp_auth.domain.signer import Signer
from macp_auth.entrypoints.signer_settings import read_signer_settings
from macp_auth.testing.registry import Nonconformity, Skipped


class SignerSubject:
    """A signer to be checked. Subclass it to say what can be done to the backend.

    A capability that is not overridden skips the checks that need it.

    Args:
        plugin: what the plugin registers.
        environ: the variables that configure it; nothing else of the environment is read for its settings.
    """

    def __init__(self, plugin: SignerPlugin, environ: Mapping[str, str]) -> None:
        self.plugin = plugin
        self.environ = environ

    async def rotate(self) -> None:
        """Make the backend offer one more key version that signs, and keep those that it has."""
        raise Skipped("the subject has no rotate()")

    async def break_backend(self) -> None:
        """Take the backend down: from now on, it can't be reached."""
        raise Skipped("the subject has no break_backend()")

    async def hang_backend(self) -> None:
        """Make the backend take requests and never answer."""
        raise Skipped("the subject has no hang_backend()")

    async def mend_backend(self) -> None:
        """Undo the two above. Called after every check, so it may find nothing to do."""

    def secrets(self) -> Collection[str | bytes]:
        """Return what must be seen nowhere, beyond the settings that are ``Secret``."""
        return ()

    # --- as the host does it --------------------------------------------------------------------------

    def settings(self) -> Struct:
        """Return the plugin's settings.

        Raises:
            ConfigurationError: the variables are not good.
        """
        return read_signer_settings(self.plugin, self.environ)

    async def prepare(self) -> bytes:
        """Return what the plugin prepares, pickled, as at the start of a service."""
        # In a thread: the host prepares before there is an event loop, and a plugin may run one of its own.
        state = await asyncio.to_thread(lambda: self.plugin.prepare(self.settings()))
        try:
            return pickle.dumps(state)
        except Exception as error:
            raise Nonconformity(
                f"what prepare() returns, a {type(state).__name__}, can't be pickled "
                f"({type(error).__name__}), and "
                "each worker process is handed it that way: return plain data, and connect in open()"
            ) from error

    def open(self, prepared: bytes) -> Signer:
        """Return a signer, as a worker process opens it."""
        state: Any = pickle.loads(prepared)  # noqa: S301 - made by prepare() above
        return self.plugin.open(state)

    @asynccontextmanager
    async def opened(self, prepared: bytes | None = None) -> AsyncIterator[Signer]:
        """Open a signer, from what was prepared or anew, and close it at the end."""
        signer = self.open(prepared if prepared is not None else await self.prepare())
        try:
            yield signer
        finally:
            await signer.aclose()
