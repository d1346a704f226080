"""Protects the keys of a process from others on its machine."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterable

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def close_memory() -> None:
    """Disable core dumps; on Linux, also prevent other processes of this user from reading the memory.

    exec(2) resets the second, so each worker process calls this too.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # A kernel that pipes core dumps to a program ignores the limit, but not this.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def forget_variables(names: Iterable[str]) -> None:
    """Remove these variables from the environment, and overwrite their values in memory.

    ``/proc/PID/environ`` and ``ps e`` still show a variable that is only removed.
    """
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    for name in names:
        if name in os.environ:
            if address := getenv(os.fsencode(name)):
                ctypes.memset(address, 0, len(os.fsencode(os.environ[name])))
            del os.environ[name]
