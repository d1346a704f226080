"""What a process with a key does so that others on its machine don't get it."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterable

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def close_memory() -> None:
    """Leave no core dump; on Linux, also let no other process of this user read the memory.

    A new program begins without the second. So each worker process calls this as well.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # The limit says nothing to a kernel that pipes core dumps to a program; this does.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def forget_variables(names: Iterable[str]) -> None:
    """Take these variables out of the environment, and their content out of the process's memory of it.

    The second is what ``/proc/PID/environ`` and ``ps e`` show: to remove a variable changes nothing there.
    """
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    for name in names:
        if name in os.environ:
            if address := getenv(os.fsencode(name)):
                ctypes.memset(address, 0, len(os.fsencode(os.environ[name])))
            del os.environ[name]
