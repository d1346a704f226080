"""The destination of audit lines: standard output, or a file that may be rotated."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from macp_auth.adapters.audit.standard_output import StandardOutput
from macp_auth.adapters.blocking_call import BlockingCall
from macp_auth.adapters.input_file import READ_SECONDS, Risk, Weakness, leads_to, weaknesses_of
from macp_auth.domain.errors import ConfigurationError

STDOUT, OFF = "stdout", "off"
_STDOUT_NAMES = {STDOUT, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}
CHECK_INTERVAL_SECONDS = 1.0
"""How often to check whether the file was moved, as logrotate does."""
_ROOM_MS = 250  # how long to wait for room in a pipe
_FILE_BYTES = 65536
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class Destination:
    """Appends whole lines, from several processes at once. Opened on first use.

    The lines of one call stay together: O_APPEND writes at the end of a file, and a pipe takes up to
    PIPE_BUF bytes atomically (write(2), pipe(7)).
    """

    def __init__(self, setting: str, output: StandardOutput) -> None:
        self._path = None if setting in _STDOUT_NAMES else Path(setting)
        self._output = output
        self._fd: int | None = None
        self._is_file = False
        self._torn = False
        self._checked = 0.0

    def open(self) -> None:
        """Open it, or reopen it if the path now names another file.

        Raises:
            OSError: it can't be opened.
        """
        now = time.monotonic()
        if self._fd is not None and self._path is not None and now - self._checked >= CHECK_INTERVAL_SECONDS:
            self._checked = now
            if not leads_to(self._path, self._fd):
                self.close()
        if self._fd is None:
            # Standard output is shared with others, so its blocking mode must not change.
            self._fd = os.dup(self._output.fd) if self._path is None else os.open(self._path, _FLAGS, 0o600)
            self._is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
            self._checked = now

    @property
    def max_bytes(self) -> int:
        """The most that :meth:`append` should be given, beyond one line. For an open destination."""
        return _FILE_BYTES if self._is_file else select.PIPE_BUF

    def append(self, lines: Sequence[bytes]) -> int:
        """Append ``lines`` in one call, and return how many of the first ones it took whole.

        Raises:
            OSError: none was written; try again later.
        """
        assert self._fd is not None, "opened before"  # noqa: S101 - for mypy
        if not self._is_file:
            self._wait_for_room(self._fd)
        # A full disk may have left half a line at the end, from this or another process.
        start = b"\n" if self._torn and self._is_file else b""
        data = start + b"".join(lines)
        self._torn = True
        taken = os.write(self._fd, data)
        self._torn = taken < len(data)
        # A line that lacks its end only is whole: the next call ends it.
        return data.count(b"\n", len(start), taken + 1)

    @staticmethod
    def _wait_for_room(fd: int) -> None:
        room = select.poll()
        room.register(fd, select.POLLOUT)
        if not room.poll(_ROOM_MS):
            raise BlockingIOError(errno.EAGAIN, "full")

    def weaknesses(self) -> list[Weakness]:
        """Return how others can change the lines of a file; a pipe has no weaknesses."""
        if self._fd is None or self._path is None or not self._is_file:
            return []
        return _weaknesses(os.fstat(self._fd))

    def close(self) -> None:
        """Close it; it may be reopened."""
        if self._fd is not None:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = None


def check_destination(setting: str, output: StandardOutput) -> list[Weakness]:
    """Test the destination before anything listens; return how others can change its lines.

    Raises:
        ConfigurationError: lines can't be appended.
    """
    return [] if setting == OFF else _in_time(partial(_try, setting, output))


def check_place(setting: str) -> list[Weakness]:
    """Like :func:`check_destination`, but create no file: the wrong user would own it.

    Raises:
        ConfigurationError: lines can't be appended.
    """
    return [] if setting in {*_STDOUT_NAMES, OFF} else _in_time(partial(_weaknesses_of, Path(setting)))


def _in_time(check: Callable[[], list[Weakness]]) -> list[Weakness]:
    try:
        return BlockingCall(check, "audit-log").result(READ_SECONDS)
    except TimeoutError:
        raise _unusable(f"the file system does not answer within {READ_SECONDS:g} s") from None


def _try(setting: str, output: StandardOutput) -> list[Weakness]:
    destination = Destination(setting, output)
    try:
        destination.open()
        return destination.weaknesses()
    except OSError as error:
        raise _unusable(os.strerror(error.errno or 0)) from error
    finally:
        destination.close()


def _weaknesses_of(path: Path) -> list[Weakness]:
    try:
        try:
            status, written = path.stat(), path
        except FileNotFoundError:
            status, written = path.parent.stat(), path.parent
    except OSError as error:
        raise _unusable(os.strerror(error.errno or 0)) from error
    if written is path and stat.S_ISDIR(status.st_mode):
        raise _unusable(os.strerror(errno.EISDIR))
    if not os.access(written, os.W_OK):
        raise _unusable(os.strerror(errno.EACCES))
    return _weaknesses(status) if stat.S_ISREG(status.st_mode) else []


def _weaknesses(status: os.stat_result) -> list[Weakness]:
    found = weaknesses_of(status, {0, os.geteuid()})
    return [weakness for weakness in found if weakness.risk is not Risk.READ]


def _unusable(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"MACP_AUTH_AUDIT_LOG can't be appended to: {reason}. "
        "Make it writable for the service, or set another path, stdout or off"
    )
