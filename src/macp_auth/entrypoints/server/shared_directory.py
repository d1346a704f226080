"""A directory in memory that the processes of one service share, removed when it stops."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from macp_auth.domain.errors import ConfigurationError

_PREFIX = "macp-auth-metrics-"
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes it private; also in a read-only container


@contextmanager
def shared_directory() -> Iterator[Path]:
    """Create a directory for the lifetime of the context, and remove those of killed services.

    Raises:
        ConfigurationError: there is no place for one.
    """
    parent = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK | os.X_OK) else _temporary()
    _sweep(parent)
    new = Path(tempfile.mkdtemp(prefix=".macp-auth-", dir=parent))
    lock = _lock(new)
    # Renamed after it is locked, so that no other service sweeps it.
    directory = new.rename(parent / f"{_PREFIX}{new.name.removeprefix('.macp-auth-')}")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise ConfigurationError(
            "MACP_AUTH_METRICS_PORT is set, and there is no place for temporary files; "
            "mount a tmpfs at /dev/shm or /tmp, or set TMPDIR"
        ) from None


def _lock(directory: Path) -> int:
    """Lock ``directory`` until this process ends, or the descriptor is closed.

    Raises:
        OSError: another process has the lock.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(parent: Path) -> None:
    for directory in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # it is in use, or another user's
            lock = _lock(directory)
            shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)
