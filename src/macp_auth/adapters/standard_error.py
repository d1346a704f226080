"""Standard error, for which nothing ever waits long: a log that nobody reads must not stop the service."""

from __future__ import annotations

import os
import queue
import select
import sys
import threading
import time
from contextlib import suppress

MAX_WAITING = 256
"""Texts; of those that ``logs.py`` writes none is over 64 KiB, and hardly one over 1 KiB."""
PATIENCE_SECONDS = 0.1
"""How long whoever writes waits until it is written, so that the last line before a crash is there."""
IMPATIENCE_SECONDS = 10.0
"""How long nobody waits, after one has waited in vain."""


class StandardError:
    """Writes what is logged in a thread of its own; what does not fit in memory is dropped, and counted.

    A disk without room loses a line, too: no log is worth a request, or a task that must go on.
    """

    def __init__(self) -> None:
        self.dropped = 0
        """How many texts were dropped, ever."""
        self._waiting: queue.Queue[tuple[str, threading.Event]] = queue.Queue(MAX_WAITING)
        self._impatient_until = 0.0
        self._process = 0

    def write(self, text: str) -> None:
        """Write ``text``, or leave it to the thread if that takes long."""
        if (
            self._process != os.getpid()
        ):  # the first text, or the first after a fork, which no thread survives
            self._process = os.getpid()
            self._waiting = queue.Queue(MAX_WAITING)
            threading.Thread(target=_write, args=[self._waiting], daemon=True, name="log").start()
        written = threading.Event()
        try:
            self._waiting.put_nowait((text, written))
        except queue.Full:
            self.dropped += 1
            return
        if time.monotonic() >= self._impatient_until and not written.wait(PATIENCE_SECONDS):
            self._impatient_until = time.monotonic() + IMPATIENCE_SECONDS

    def flush(self) -> None:
        """Do nothing: what was written waits for no more."""


def _write(waiting: queue.Queue[tuple[str, threading.Event]]) -> None:
    while True:
        text, written = waiting.get()
        with suppress(OSError, ValueError):  # a full disk; a stream that was closed
            _write_to_standard_error(text)
        written.set()


def _write_to_standard_error(text: str) -> None:
    try:
        fd = sys.stderr.fileno()
    except OSError:  # one that is no file, as in a test
        sys.stderr.write(text)
        return
    # Not by the stream: Python ends in a crash if a thread holds that one's lock then.
    data = text.encode(errors="backslashreplace")
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # another process made the pipe so
            room = select.poll()
            room.register(fd, select.POLLOUT)
            room.poll()
