"""The operating system's process of a signer: its start, its output, and its end.

It is a new program, not a fork: it has none of the service's memory and descriptors. It gets the variables
that every program needs, its memory is limited, and all that it prints is in the log.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack, suppress
from io import RawIOBase
from typing import Any, TypeVar

import structlog
from msgspec import Struct

from macp_auth.adapters.sandbox.connection import ENDED, Connection
from macp_auth.domain.allowance import Allowance
from macp_auth.domain.errors import SignerUnavailable
from macp_auth.domain.redaction import shown

T = TypeVar("T")

COMMON_VARIABLES = (
    *("PATH", "HOME", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    # Where the plugin and its libraries are.
    *("PYTHONPATH", "LD_LIBRARY_PATH"),
)
"""The variables of every process; a star at the end stands for any text."""
DESCRIPTORS = 1024
"""The usual limit of a program; the service's own is far higher."""
LINES, LINES_SECONDS = 50, 10
"""How many lines of output are logged, and in how many seconds."""
_EXIT_SECONDS = 0.5
_LINE_CHARS = 2000
_MOST_BYTES = 4 * _LINE_CHARS  # in UTF-8
_CHUNK_BYTES = 65536  # the size of a pipe
_CHUNK_SECONDS = 0.02
_OUTPUT_SECONDS = 0.5
"""How long to read what an ended process printed last; a program that it has started may keep the pipe."""
_groups: set[int] = set()
"""The process groups of the signers that may run."""
_log = structlog.get_logger()


class Launch(Struct, frozen=True):
    """How the process of a signer is started."""

    name: str
    """The signer's name."""
    command: tuple[str, ...]
    memory_bytes: int
    """The limit of its data and stacks."""


class SignerProcess:
    """A process, not yet started when made."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self.connection: Connection
        self._process: subprocess.Popen[bytes] | None = None
        self._output: asyncio.Task[None] | None = None

    def spawn(self) -> None:
        """Start the program, if it has not started.

        Raises:
            SignerUnavailable: it can't be started.
        """
        if self._process is not None:
            return
        with ExitStack() as ours:
            try:
                self._start(ours)
            except OSError as error:
                raise SignerUnavailable(
                    f"cannot start {self._launch.command[0]}, the program of the signer "
                    f"{self._launch.name!r}: {error.strerror}"
                ) from None
            ours.pop_all()

    def _start(self, ours: ExitStack) -> None:
        self._socket, theirs = socket.socketpair()
        ours.enter_context(self._socket)
        with theirs:
            reading, writing = os.pipe()
            self._pipe = ours.enter_context(os.fdopen(reading, "rb", buffering=0))
            with os.fdopen(writing, "wb", buffering=0) as output:
                self._process = subprocess.Popen(  # noqa: S603 - the operator's command
                    self._launch.command,
                    stdin=theirs.fileno(),
                    stdout=output,
                    stderr=output,
                    env=selected(os.environ, COMMON_VARIABLES),
                    # Ctrl-C is for the service; and what it starts can be ended with it.
                    start_new_session=True,
                )
                _groups.add(self._process.pid)
        self._limit(self._process.pid)

    async def connect(self, when_lost: Callable[[str], None] = lambda _: None) -> None:
        """Connect to the program, and log what it prints.

        Args:
            when_lost: called once when no more replies can come, with the reason.
        """
        self.connection = Connection(self._launch.name, when_lost)
        loop = asyncio.get_running_loop()
        self._output = loop.create_task(_log_output(self._launch.name, self._pipe))
        await loop.create_connection(lambda: self.connection, sock=self._socket)

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of ``work``, which makes calls, or end the process, and so the calls.

        Raises:
            TimeoutError: it took longer than ``seconds``.
        """
        task = asyncio.create_task(work)
        try:
            if not (await asyncio.wait([task], timeout=seconds))[0]:
                raise TimeoutError
            return task.result()
        finally:
            if not task.done():
                await self.kill()
                await asyncio.gather(task, return_exceptions=True)  # it fails, and nobody asks why

    async def kill(self) -> None:
        """End it, and what it has started."""
        ended = False
        if self._output is not None:
            ended = self.connection.lost == ENDED
            self.connection.close()
        # Once it has been waited for, its number may be that of another group.
        if self._process is not None and self._process.returncode is None:
            if ended and sys.platform == "linux":  # Python has no waitid on macOS
                await _exited(self._process.pid)
            _kill_group(self._process.pid)
            while self._process.poll() is None:  # noqa: ASYNC110 - at once, but for a device that hangs
                await asyncio.sleep(0.005)
            _groups.discard(self._process.pid)
        if self._output is not None:
            await asyncio.wait([self._output], timeout=_OUTPUT_SECONDS)
            self._output.cancel()

    @property
    def exit_status(self) -> int | None:
        """The exit status, negative for a signal; None if it runs, or was not started."""
        return None if self._process is None else self._process.poll()

    def _limit(self, pid: int) -> None:
        if sys.platform != "linux":
            return
        for kind, limit in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_DATA, self._launch.memory_bytes),
            (resource.RLIMIT_NOFILE, DESCRIPTORS),
        ):
            with suppress(ProcessLookupError):
                hard = resource.prlimit(pid, kind)[1]
                within = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
                resource.prlimit(pid, kind, (within, within))


@atexit.register
def kill_all() -> None:
    """End all processes, for an exit that waits for none: one that hangs does not see it."""
    for group in list(_groups):
        _kill_group(group)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the second: on macOS, if it has ended
        os.killpg(group, signal.SIGKILL)


def selected(environ: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """Return the variables with these names; a star at the end of a name stands for any text."""
    starts = tuple(name[:-1] for name in names if name.endswith("*"))
    return {
        name: value
        for name, value in environ.items()
        if name in names or (starts and name.startswith(starts))
    }


async def _exited(pid: int) -> None:
    """Wait for the exit of a process whose connection has ended: its exit status says why.

    It stays a zombie, so that its process group is still its own.
    """
    ends = time.monotonic() + _EXIT_SECONDS
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while os.waitid(os.P_PID, pid, options) is None and time.monotonic() < ends:  # noqa: ASYNC110, ASYNC222 - it does not wait
        await asyncio.sleep(0.005)


async def _log_output(name: str, pipe: RawIOBase) -> None:
    """Log what the process prints, line by line; lines over the limit are counted."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    allowance, suppressed, rest = Allowance(LINES, LINES_SECONDS), 0, b""
    try:
        while chunk := await reader.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LINE_CHARS:
                lines, rest = [*lines, rest], b""
            for number, line in enumerate(lines):
                if not allowance.take(time.monotonic()):
                    suppressed += len(lines) - number
                    break
                _log_line(name, line, suppressed)
                suppressed = 0
            await asyncio.sleep(_CHUNK_SECONDS)  # one that prints without end waits, and takes no time
        _log_line(name, rest, suppressed)
    finally:
        transport.close()


def _log_line(name: str, line: bytes, suppressed: int) -> None:
    text = line[:_MOST_BYTES].decode(errors="replace").rstrip()
    if text or suppressed:
        more = {"suppressed": suppressed} if suppressed else {}
        _log.warning("signer output", signer=name, line=shown(text, _LINE_CHARS), **more)
