"""Reserves standard output for the audit log."""

from __future__ import annotations

import os
from multiprocessing.reduction import DupFd
from typing import Any

_STDOUT_FD, _STDERR_FD = 1, 2
_CLOSED = -1


class StandardOutput:
    """The original standard output. Can be pickled for a worker process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        """The descriptor; -1 if it was closed."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pass the descriptor itself to the worker."""
        return (StandardOutput, (_CLOSED,)) if self.fd == _CLOSED else (_received, (DupFd(self.fd),))


def reserve() -> StandardOutput:
    """Take standard output and redirect descriptor 1 to standard error.

    So output of a plugin, its libraries or its child processes can't get into the audit log.
    """
    try:
        reserved = StandardOutput(os.dup(_STDOUT_FD))
    except OSError:
        return StandardOutput(_CLOSED)
    os.dup2(_STDERR_FD, _STDOUT_FD)
    return reserved


def _received(passed: Any) -> StandardOutput:
    fd: int = passed.detach()
    os.set_inheritable(fd, False)  # noqa: FBT003 - it takes no name
    return StandardOutput(fd)
