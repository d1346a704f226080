"""Signers that each leak one thing, while all else is right: what the soak is there to notice.

A service finds them as plugins, through entry points like ``tests.soak.leaks:leaks_memory``.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from msgspec import Struct

from macp_auth import Secret, SignerPlugin, hookimpl
from macp_auth_example import ExampleSettings, ExampleSigner, prepare
from tests.support.signers import example_signer, with_plugins

_EVERY_SECONDS = 0.05  # and not at each signature: the warm-up's speed would decide how much comes after it
_BLOCK = 256 * 1024
_kept: list[object] = []


def _leak_memory() -> None:
    _kept.append(b"x" * _BLOCK)


def _leak_a_descriptor() -> None:
    _kept.append(os.open(os.devnull, os.O_RDONLY))


def _leak_a_thread() -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


class LeakySigner(ExampleSigner):
    """Signs as the template does, and leaks again and again."""

    def __init__(self, leak: Callable[[], None], pem: Secret[bytes]) -> None:
        super().__init__(pem)
        self._leak = leak
        self._leaked_at = 0.0

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        now = time.monotonic()
        if now - self._leaked_at >= _EVERY_SECONDS:
            self._leaked_at = now
            self._leak()
        return await super().sign(kid, signing_input)


class Leak(Struct, frozen=True):
    """A plugin with one leak."""

    name: str
    leak: Callable[[], None]

    @hookimpl
    def macp_auth_signer(self) -> SignerPlugin:
        return SignerPlugin(
            name=self.name,
            api_version=1,
            settings=ExampleSettings,
            settings_prefix="MACP_AUTH_EXAMPLE_",
            prepare=prepare,
            open=partial(LeakySigner, self.leak),
        )


leaks_memory = Leak("leaks-memory", _leak_memory)
leaks_descriptors = Leak("leaks-descriptors", _leak_a_descriptor)
leaks_threads = Leak("leaks-threads", _leak_a_thread)


@contextmanager
def leaky(plugin: Leak, directory: Path) -> Iterator[dict[str, str]]:
    """The environment of a service that leaks."""
    place = f"{__name__}:{plugin.name.replace('-', '_')}"
    installed = with_plugins(directory / plugin.name, plugin.name, {plugin.name: place})
    yield {**example_signer(directory), **installed, "MACP_AUTH_SIGNER": plugin.name}
