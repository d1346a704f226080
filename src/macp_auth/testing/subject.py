"""The subject of the checks, provided by the plugin's author: the plugin, its settings, its backend."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from macp_auth.adapters.blocking_call import BlockingCall
from macp_auth.adapters.hookspecs import SignerPlugin
from macp_auth.domain.signer import Signer
from macp_auth.entrypoints.signers.settings import read_signer_settings
from macp_auth.testing.registry import Nonconformity, Skipped

NO_LIMIT = 86400.0  # who calls has one


class SignerSubject:
    """A signer to be checked. Subclass it to control the backend.

    Checks that need a method which is not overridden are skipped.

    Args:
        plugin: the plugin.
        environ: the variables that configure it; its settings are read only from these.
    """

    def __init__(self, plugin: SignerPlugin, environ: Mapping[str, str]) -> None:
        self.plugin = plugin
        self.environ = environ

    async def rotate(self) -> None:
        """Add a key version that can sign to the backend, and keep the others."""
        raise Skipped("the subject has no rotate()")

    async def break_backend(self) -> None:
        """Make the backend unreachable."""
        raise Skipped("the subject has no break_backend()")

    async def hang_backend(self) -> None:
        """Make the backend accept requests without answering."""
        raise Skipped("the subject has no hang_backend()")

    async def refuse_backend(self) -> None:
        """Make the backend answer, and refuse to sign: a permission is missing."""
        raise Skipped("the subject has no refuse_backend()")

    async def garble_backend(self) -> None:
        """Make the backend answer requests with what is no answer."""
        raise Skipped("the subject has no garble_backend()")

    async def restore_backend(self) -> None:
        """Undo what the others of these methods did. Called after every check, also without a fault."""

    def secrets(self) -> Collection[str | bytes]:
        """Return the secrets that no output may show, in addition to settings of type ``Secret``."""
        return ()

    # --- as in the host -------------------------------------------------------------------------------

    def settings(self) -> Struct:
        """Return the plugin's settings.

        Raises:
            ConfigurationError: a variable is invalid.
        """
        return read_signer_settings(self.plugin, self.environ)

    async def prepare(self) -> bytes:
        """Return the pickled result of the plugin's ``prepare``, as at the start of a service."""
        settings = self.settings()
        # In a thread: a plugin may run an event loop of its own. It ends with the process, even if it hangs.
        preparing = BlockingCall(lambda: self.plugin.prepare(settings), "prepare")
        state = await preparing.result_async(NO_LIMIT)
        try:
            return pickle.dumps(state)
        except Exception as error:
            raise Nonconformity(
                f"the result of prepare(), a {type(state).__name__}, can't be pickled for the worker "
                f"processes ({type(error).__name__}): return plain data, and connect in open()"
            ) from error

    def open(self, prepared: bytes) -> Signer:
        """Return a signer, as a worker process opens it."""
        state: Any = pickle.loads(prepared)  # noqa: S301 - made by prepare() above
        return self.plugin.open(state)

    @asynccontextmanager
    async def opened(self, prepared: bytes | None = None) -> AsyncIterator[Signer]:
        """Open a signer from ``prepared``, or from a new result of ``prepare``, and close it at the end."""
        signer = self.open(prepared if prepared is not None else await self.prepare())
        try:
            yield signer
        finally:
            await signer.aclose()
