"""Standard output, which the audit log has for itself."""

from __future__ import annotations

import os
from multiprocessing.reduction import DupFd
from typing import Any

_STDOUT_FD, _STDERR_FD = 1, 2
_CLOSED = -1


class StandardOutput:
    """What was standard output when the service began. Picklable for the worker processes that it starts."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        """Its descriptor; -1 if it was closed."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Have the descriptor itself passed on."""
        return (StandardOutput, (_CLOSED,)) if self.fd == _CLOSED else (_received, (DupFd(self.fd),))


def reserve() -> StandardOutput:
    """Take standard output, and give descriptor 1 to standard error.

    What a plugin, its libraries or a child of theirs prints is then no line of the audit log.
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
