"""Writes to standard error without long waits: a log that is not read must not stop the service."""

from __future__ import annotations

import os
import queue
import select
import sys
import threading
import time
from contextlib import suppress

MAX_WAITING = 256
"""Number of texts; those of ``logs.py`` are at most 64 KiB and rarely over 1 KiB."""
PATIENCE_SECONDS = 0.1
"""How long a caller waits until the text is written, so that the last line before a crash is not lost."""
IMPATIENCE_SECONDS = 10.0
"""How long no caller waits after one has timed out."""


class StandardError:
    """Writes in a separate thread; texts that do not fit in memory are dropped and counted.

    A full disk loses lines, too: requests and background tasks are more important than the log.
    """

    def __init__(self) -> None:
        self.dropped = 0
        """The total number of dropped texts."""
        self._waiting: queue.Queue[tuple[str, threading.Event]] = queue.Queue(MAX_WAITING)
        self._impatient_until = 0.0
        self._process = 0

    def write(self, text: str) -> None:
        """Write ``text``, or leave it to the thread if that takes long."""
        if self._process != os.getpid():  # the first text, or the first after a fork, which stops the thread
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
        """Do nothing: ``write`` does not buffer."""


def _write(waiting: queue.Queue[tuple[str, threading.Event]]) -> None:
    while True:
        text, written = waiting.get()
        with suppress(OSError, ValueError):  # a full disk, or a closed stream
            _write_to_standard_error(text)
        written.set()


def _write_to_standard_error(text: str) -> None:
    try:
        fd = sys.stderr.fileno()
    except OSError:  # not a file, as in a test
        sys.stderr.write(text)
        return
    # Not through the stream: Python crashes at exit if a thread holds its lock.
    data = text.encode(errors="backslashreplace")
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # another process made the pipe non-blocking
            room = select.poll()
            room.register(fd, select.POLLOUT)
            room.poll()
