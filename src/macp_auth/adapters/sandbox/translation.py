"""Translates the exceptions of a plugin to domain errors."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from macp_auth.adapters.well_formed import well_formed_versions
from macp_auth.domain.errors import SignerError, reason_of
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.redaction import shown
from macp_auth.domain.signer import Signer
from macp_auth.domain.statistics import Statistics, sound_statistics

T = TypeVar("T")


class PluginFault(SignerError):
    """The plugin raised an exception that is not a SignerError. The text never has its message."""

    default_reason = "plugin-fault"


class TranslatingSigner(Signer):
    """Opens a plugin's signer at the first call, and names the plugin in its errors.

    The signer is opened late so that an unreachable backend does not stop the worker: the next reading of the
    keys tries again.

    Args:
        opening: creates the plugin's signer.
        name: the plugin's name in messages.
    """

    def __init__(self, opening: Callable[[], Signer], name: str) -> None:
        self._opening = opening
        self._name = name
        self._opened: Signer | None = None

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return checked copies of the plugin's versions."""

        async def read(signer: Signer) -> Sequence[KeyVersion]:
            return list(well_formed_versions(await signer.key_versions(), self._name))

        return await self._translated("key_versions", read)

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the plugin's signature.

        Raises:
            PluginFault: it is not of the type bytes.
        """
        signature: object = await self._translated("sign", lambda signer: signer.sign(kid, signing_input))
        if not isinstance(signature, bytes):
            kind = type(signature).__name__
            raise PluginFault(f"the signer plugin {self._name!r} returned a {kind} from sign(), not bytes")
        return signature

    async def aclose(self) -> None:
        """Close the plugin's signer, if it was opened."""
        if self._opened is not None:
            await self._translated("aclose", lambda signer: signer.aclose())

    def statistics(self) -> Statistics:
        """Return the plugin's valid numbers."""
        if self._opened is None:
            return {}
        try:
            return sound_statistics(self._opened.statistics())
        except BaseException:  # noqa: BLE001 - no number is worth a fault, and nothing cancels this
            return {}

    async def _translated(self, operation: str, call: Callable[[Signer], Awaitable[T]]) -> T:
        try:
            if self._opened is None:
                self._opened = self._opening()
            return await call(self._opened)
        except asyncio.CancelledError:
            raise
        # BaseException: the panic of a Rust extension is not an Exception, and SystemExit is not either.
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            # Its message may contain a secret, and a chained exception would be logged.
            raise translated(error, self._name, operation) from None


def translated(error: BaseException, name: str, operation: str) -> SignerError:
    """Return the error of the domain for what the plugin ``name`` raised in ``operation``."""
    if isinstance(error, SignerError):
        return _plain(error)
    raised = f"{type(error).__name__} in {operation}{place_of(error)}"
    return PluginFault(
        f"the signer plugin {name!r} raised {raised}; only macp_auth's SignerErrors may leave a signer"
    )


def _plain(error: SignerError) -> SignerError:
    """Return ``error`` as a domain class: a plugin's subclass may have an unbounded text."""
    try:
        text, reason = str(error), reason_of(error)
    except Exception:  # noqa: BLE001 - a class of the plugin's may define both
        text, reason = type(error).__name__, None
    parents = (each for each in type(error).__mro__ if issubclass(each, SignerError))
    known = next(each for each in parents if each.__module__ == SignerError.__module__)
    if type(error) is known and text == shown(text):
        return error
    plain = known.__new__(known)
    SignerError.__init__(plain, text, reason=reason)
    return plain


def place_of(error: BaseException) -> str:
    """Return the file name and line where ``error`` was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
