"""A plugin that does harm to its process. Which one is in the file ``fault`` in its home; else it signs well.

The file may change at any time. Each process of the plugin leaves its number in the folder ``processes``.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import resource
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from macp_auth import KeyVersion, Secret, SignerPlugin, SignerUnavailable, hookimpl
from macp_auth.adapters.signers.ephemeral import EphemeralSettings, prepare
from macp_auth.adapters.signers.local import LocalKey, LocalSigner

HOME = Path(os.environ["HOME"])
_LONG = "x" * 10_000_000
_PR_GET_DUMPABLE = 3  # linux/prctl.h
_kept: list[object] = []


class HostileSettings(EphemeralSettings, frozen=True):
    """Those of the ephemeral signer, and a secret."""

    pin: Secret[str] = Secret("")


class Sight(Struct, frozen=True):
    """What the plugin sees of its process."""

    environment: dict[str, str]
    descriptors: list[tuple[int, int]]
    """The device and inode of each, but for the standard ones."""
    dumpable: int
    core: tuple[int, int]


def fault() -> str:
    """Return the harm to do now."""
    with suppress(FileNotFoundError):
        return (HOME / "fault").read_text()
    return ""


def leave_number() -> None:
    """Leave the number of this process."""
    (HOME / "processes").mkdir(exist_ok=True)
    (HOME / "processes" / str(os.getpid())).touch()


def hold_the_gil() -> None:
    """Sleep without releasing the interpreter's lock."""
    ctypes.PyDLL(None).sleep(3600)


def crash() -> None:
    """Write to address 0."""
    faulthandler.disable()
    ctypes.memset(0, 0, 1)


def start_threads() -> None:
    """Start threads that never end, and that Python waits for at its end."""
    for _ in range(100):
        threading.Thread(target=threading.Event().wait).start()


def leak_descriptors() -> None:
    """Open descriptors until there are no more."""
    while True:
        _kept.append(socket.socket())


def take_memory() -> None:
    """Take and use 1 GB."""
    _kept.append(bytearray(b"x") * 1_000_000_000)


def exit_and_not_start() -> None:
    """End; then the import exits."""
    os._exit(0)


def handle_signals() -> None:
    """Ignore every signal that can be ignored, and be interrupted all the time."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):
            signal.signal(number, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)


def close_descriptors() -> None:
    """Close all that somebody else has opened."""
    os.closerange(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def write_to_the_service() -> None:
    """Write into each socket what is no message."""
    for number in range(3, 64):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.write(number, b"\xff" * 100)


def print_some() -> None:
    """Print to both streams, also without the end of a line."""
    print("printed\x1b[31m")  # noqa: T201 - what a careless plugin does
    print("no end", end="", file=sys.stderr, flush=True)  # noqa: T201
    sys.stdout.flush()


def print_without_end() -> None:
    """Print short lines for ever."""

    def write() -> None:
        while True:
            os.write(1, b"y\n" * 2000)

    if not _kept:
        _kept.append(None)
        threading.Thread(target=write, daemon=True).start()


def change_directory() -> None:
    """Go to a folder and remove it."""
    folder = HOME / f"gone-{time.monotonic_ns()}"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()


def fork() -> None:
    """Start a copy of the process that never ends."""
    if os.fork() == 0:
        leave_number()
        while True:
            time.sleep(3600)


def raise_a_long_error() -> None:
    """Raise an error of the port with a text of 10 MB."""
    raise SignerUnavailable(_LONG)


def raise_another_long_error() -> None:
    """Raise an error with a text of 10 MB."""
    raise ValueError(_LONG)


HARM: dict[str, Callable[[], None]] = {
    harm.__name__: harm
    for harm in (
        hold_the_gil, crash, start_threads, leak_descriptors, take_memory, exit_and_not_start, handle_signals,
        close_descriptors, write_to_the_service, print_some, print_without_end, change_directory, fork,
        raise_a_long_error, raise_another_long_error,
    )
}  # fmt: skip


class HostileSigner(LocalSigner):
    """Does harm, then signs."""

    def __init__(self, keys: Sequence[LocalKey]) -> None:
        super().__init__(keys)
        look("open")

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return its key, or far too many."""
        versions = await super().key_versions()
        if fault() == "ten_thousand_versions":
            return [msgspec.structs.replace(versions[0], kid=f"kid-{number}") for number in range(10_000)]
        return versions

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Do harm; then sign in a thread of the loop's, as a blocking client would."""
        name = fault()
        if name == "exit":
            os._exit(7)
        if name == "write_into_arguments":
            ctypes.memset(id(signing_input) + bytes.__basicsize__ - 1, ord("x"), len(signing_input))
        if name == "hang_in_a_thread":
            await asyncio.to_thread(threading.Event().wait)
        if name in HARM:
            HARM[name]()
        return await asyncio.to_thread(
            lambda: asyncio.run(super(HostileSigner, self).sign(kid, signing_input))
        )


def look(place: str) -> None:
    """Write down what can be seen."""
    descriptors = []
    for number in range(3, 256):
        with suppress(OSError):
            found = os.fstat(number)
            descriptors.append((found.st_dev, found.st_ino))
    sight = Sight(
        dict(os.environ),
        descriptors,
        ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0),
        resource.getrlimit(resource.RLIMIT_CORE),
    )
    (HOME / f"sight-{place}").write_bytes(msgspec.json.encode(sight))


def prepare_hostile(settings: HostileSettings) -> object:
    """Look around."""
    look("prepare")
    return prepare(settings)


@hookimpl
def macp_auth_signer() -> SignerPlugin:
    """Register the signer."""
    return SignerPlugin(
        name="hostile",
        api_version=1,
        settings=HostileSettings,
        settings_prefix="MACP_AUTH_HOSTILE_",
        environment=("HOSTILE_LIBRARY_*",),
        prepare=prepare_hostile,
        open=HostileSigner,
        sign_seconds=1.0,
    )


leave_number()
look("import")
if fault() == "exit_and_not_start":
    sys.exit(0)
