"""Returns free memory to the system after connections closed.

malloc keeps what is below an allocation in use: after 12 floods of 200 TLS connections, 55 to 67 MiB.
"""

from __future__ import annotations

import asyncio
import ctypes
from typing import Any

TRIM_SECONDS = 1.0
"""How soon. A trim takes 0.1 to 0.5 ms, and 3 after such a flood."""
TRIM_AGAIN_SECONDS = 10.0
"""When it follows once more, for what was freed late: a busy machine closes connections slowly."""
_malloc_trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it


class MallocTrim:
    """Calls malloc_trim. Belongs to the thread of one event loop."""

    def __init__(self) -> None:
        self._is_due = False

    def soon(self) -> None:
        """Call it after :data:`TRIM_SECONDS`, for all who ask until then, and again later."""
        if self._is_due or _malloc_trim is None:
            return
        self._is_due = True
        loop = asyncio.get_running_loop()
        loop.call_later(TRIM_SECONDS, self._trim)
        loop.call_later(TRIM_AGAIN_SECONDS, _malloc_trim, 0)

    def _trim(self) -> None:
        self._is_due = False
        _malloc_trim(0)
