"""The reading end of a pipe that a service, or a part of it, writes to."""

from __future__ import annotations

import os
from contextlib import suppress

from tools.support.bounded import HANG_SECONDS
from tools.support.service import wait_until


def read_lines(reader: int, count: int) -> list[bytes]:
    """What comes until there are so many lines, each with its end. The descriptor must not block."""
    received = b""

    def enough() -> bool:
        nonlocal received
        with suppress(BlockingIOError):
            received += os.read(reader, 65536)
        return received.count(b"\n") >= count

    wait_until(enough, within=HANG_SECONDS, what=f"{count} lines")
    return received.splitlines(keepends=True)
