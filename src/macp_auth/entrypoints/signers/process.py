"""The program of a plugin's process: loads the plugin, and answers the service (``adapters/sandbox``).

Its standard input is a socket to the service. It ends when the service does.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import pickle
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping

import uvloop

from macp_auth.adapters.hookspecs import SignerPlugin
from macp_auth.adapters.plugins import load_signer_plugin
from macp_auth.adapters.sandbox.messages import (
    PROTOCOL,
    Description,
    Diagnose,
    Found,
    Hello,
    Nothing,
    Numbers,
    Open,
    Prepare,
    Sign,
    Signature,
    State,
    Variable,
    Versions,
)
from macp_auth.adapters.sandbox.serving import Method, Server
from macp_auth.adapters.sandbox.translation import TranslatingSigner, place_of, translated
from macp_auth.domain.diagnosis import Finding
from macp_auth.domain.errors import SignerError, SignerMisconfigured, SignerUnavailable
from macp_auth.entrypoints.custody import close_memory
from macp_auth.entrypoints.environment import variables
from macp_auth.entrypoints.signers.settings import check_declarations, declared_secrets, read_signer_settings

_STACK_BYTES = 1024 * 1024
"""Of a thread, as in Docker's images of Python on Alpine. The system's 8 MiB count as memory, so some fifty
threads would reach its usual limit."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class PluginProcess:
    """The plugin called ``name``, and its signer. Made in the event loop, where the plugin loads at once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loading = asyncio.get_running_loop().create_task(self._load())
        self._loaded: SignerPlugin | None = None
        self._signer: TranslatingSigner | None = None
        self.server = Server(
            {
                "hello": Method(Hello, self.hello),
                "ping": Method(Nothing, self.ping),
                "prepare": Method(Prepare, self.prepare),
                "open": Method(Open, self.open),
                "key_versions": Method(Nothing, self.key_versions),
                "sign": Method(Sign, self.sign),
                "statistics": Method(Nothing, self.statistics),
                "diagnose": Method(Diagnose, self.diagnose),
                "close": Method(Nothing, self.close),
            },
            when_closed=lambda: os._exit(0),  # not by sys.exit(), which waits for threads
        )

    async def hello(self, hello: Hello) -> Description:
        """Return what the plugin declares."""
        if hello.protocol != PROTOCOL:
            raise SignerMisconfigured(f"this process speaks version {PROTOCOL} of the signer protocol")
        plugin = self._loaded = await self._loading
        check_declarations(plugin)
        secret = set(declared_secrets(plugin))
        declared = variables(plugin.settings, plugin.settings_prefix)
        return Description(
            protocol=PROTOCOL,
            name=plugin.name,
            durable=plugin.durable,
            prefix=plugin.settings_prefix,
            variables=[Variable(name, secret=name in secret) for each in declared for name in each.names],
            environment=plugin.environment,
            sign_seconds=plugin.sign_seconds,
            concurrent_signs=plugin.concurrent_signs,
            diagnoses=plugin.diagnose is not None,
        )

    async def _load(self) -> SignerPlugin:
        return load_signer_plugin(self._name)

    async def ping(self, _: Nothing) -> Nothing:
        """Show that the event loop runs."""
        return Nothing()

    async def prepare(self, request: Prepare) -> State:
        """Return the pickled state that the plugin prepares from the settings in the environment."""
        os.environ.update(request.environment)
        # In a thread, where no event loop runs: a plugin may run its own.
        return State(await asyncio.to_thread(prepared_state, self._plugin, request.environment))

    async def open(self, request: Open) -> Nothing:
        """Take the state. The signer is opened at the first call, so an unreachable backend can come back."""
        os.environ.update(request.environment)
        plugin, state = self._plugin, request.state
        gc.collect()
        gc.freeze()  # what is loaded now stays
        self._signer = TranslatingSigner(lambda: plugin.open(pickle.loads(state)), self._name)  # noqa: S301 - from prepare
        return Nothing()

    async def key_versions(self, _: Nothing) -> Versions:
        """Return the signer's versions."""
        return Versions(await self._opened.key_versions())

    async def sign(self, request: Sign) -> Signature:
        """Return a signature."""
        return Signature(await self._opened.sign(request.kid, request.input))

    async def statistics(self, _: Nothing) -> Numbers:
        """Return the signer's numbers."""
        return Numbers(self._opened.statistics())

    async def diagnose(self, request: Diagnose) -> Nothing:
        """Send each finding as a notification."""
        os.environ.update(request.environment)
        loop = asyncio.get_running_loop()

        def send(finding: Finding) -> None:
            loop.call_soon_threadsafe(self.server.notify, "finding", Found(finding))

        await asyncio.to_thread(_diagnose, self._plugin, request, send)
        return Nothing()

    async def close(self, _: Nothing) -> Nothing:
        """Close the signer; the service then ends this process."""
        if self._signer is not None:
            await self._signer.aclose()
        return Nothing()

    @property
    def _plugin(self) -> SignerPlugin:
        if self._loaded is None:
            raise SignerUnavailable("hello comes first")
        return self._loaded

    @property
    def _opened(self) -> TranslatingSigner:
        if self._signer is None:
            raise SignerUnavailable("open comes first")
        return self._signer


def prepared_state(plugin: SignerPlugin, environ: Mapping[str, str]) -> bytes:
    """Return the pickled state that ``plugin`` prepares for the worker processes.

    Raises:
        ConfigurationError: a variable is invalid.
        SignerMisconfigured: the plugin failed, or its state can't be pickled; the text names the plugin.
    """
    settings = read_signer_settings(plugin, environ)
    try:
        state = plugin.prepare(settings)
    except SignerMisconfigured:
        raise
    except SignerError as error:
        raise SignerMisconfigured(f"the signer plugin {plugin.name!r} failed to prepare: {error}") from error
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything; its message may hold a secret
        raise SignerMisconfigured(
            f"the signer plugin {plugin.name!r} raised {type(error).__name__} in prepare{place_of(error)}; "
            "check its settings, or fix its package"
        ) from None
    try:
        return pickle.dumps(state)
    except BaseException as error:  # noqa: BLE001 - pickle raises whatever an object's methods raise
        raise SignerMisconfigured(
            f"cannot pass the state of the signer plugin {plugin.name!r} to a worker process "
            f"({type(error).__name__}); prepare() must return an object that can be pickled"
        ) from None


def _diagnose(plugin: SignerPlugin, request: Diagnose, found: Callable[[Finding], None]) -> None:
    if plugin.diagnose is None:
        return
    try:
        for finding in plugin.diagnose(pickle.loads(request.state), request.policy):  # noqa: S301 - from prepare
            found(finding)
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
        raise translated(error, plugin.name, "diagnose") from None


def main() -> None:
    """Answer the service until it is gone."""
    close_memory()
    threading.stack_size(_STACK_BYTES)
    if sys.platform == "linux":  # a plugin may keep the event loop from seeing that the service is gone
        _end_with_parent()
        os.register_at_fork(after_in_child=_end_with_parent)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    service = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what reads standard input finds nothing
    if _is_closed(service):  # it ended before _end_with_parent()
        return
    uvloop.run(_serve(sys.argv[1], service))


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _is_closed(service: socket.socket) -> bool:
    poll = select.poll()
    poll.register(service, 0)  # a closed end is always reported
    return bool(poll.poll(0))


async def _serve(name: str, service: socket.socket) -> None:
    process = PluginProcess(name)
    await asyncio.get_running_loop().create_connection(lambda: process.server, sock=service)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
