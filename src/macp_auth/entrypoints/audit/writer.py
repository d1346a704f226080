"""Writes lines in a thread of its own, so that no disk and no pipe ever holds up a mint.

Lines wait in memory for as long as they can't be written, up to a bound; beyond it they are lost,
and counted. Trouble is logged by this thread too, for what blocks standard output may block
standard error as well: the event loop must not be the one to wait.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

import structlog

from macp_auth.entrypoints.audit.destination import Destination

GATHER_SECONDS = 0.02
"""How long a line waits for others to be written with: what a killed process may lose."""
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 1.0
"""How long the end waits for the last lines to be written."""
MAX_WAITING = 10_000
"""Lines; some 5 MiB."""
_BATCH = 256  # lines
TROUBLE = "AUDIT LOG CAN'T BE WRITTEN; lines wait in memory"
LOST = "AUDIT LINES ARE LOST"
RECOVERED = "audit log can be written again"
_log = structlog.get_logger()


class LineWriter:
    """Appends lines to a destination.

    Args:
        destination: where to.
        lost_line: makes the line that takes the place of so many lost ones.
        on_lost: told of so many lost lines; must return at once.
    """

    def __init__(
        self,
        destination: Destination,
        lost_line: Callable[[int], bytes],
        on_lost: Callable[[int], object],
    ) -> None:
        self._destination = destination
        self._lost_line = lost_line
        self._on_lost = on_lost
        self._waiting: deque[bytes] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="audit-log")
        self._lost = 0
        self._recorded = 0  # how many of them the log itself tells of
        self._in_trouble = False
        self._losing = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Have a line written, soon. Returns at once, whatever state the destination is in."""
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            self._on_lost(1)
            return
        self._waiting.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what waits, if that can be done within :data:`CLOSE_SECONDS`, and end."""
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(GATHER_SECONDS)
            self._wake.clear()
            while not self._write_all() and not self._closing.wait(RETRY_SECONDS):
                pass
        if not self._write_all():
            self._on_lost(len(self._waiting))
            _log.error(LOST, lines=len(self._waiting) + self._lost - self._recorded)
        self._destination.close()

    def _write_all(self) -> bool:
        """Write all that waits; return whether that could be done."""
        try:
            while self._waiting:
                self._write_some()
            self._record_lost()
        except OSError as error:
            self._tell_trouble(os.strerror(error.errno or 0))
            return False
        if self._in_trouble:
            _log.info(RECOVERED, lost=self._lost)
        self._in_trouble = self._losing = False
        return True

    def _write_some(self) -> None:
        self._destination.open()
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
        written = 0
        try:
            written = self._destination.append(batch)
        finally:
            self._waiting.extendleft(reversed(batch[written:]))

    def _record_lost(self) -> None:
        if missing := self._lost - self._recorded:
            self._waiting.append(self._lost_line(missing))
            self._recorded += missing
            self._tell_lost()
            self._write_some()

    def _tell_trouble(self, reason: str) -> None:
        if not self._in_trouble:
            _log.error(TROUBLE, reason=reason)
        self._in_trouble = True
        if self._lost > self._recorded:
            self._tell_lost()

    def _tell_lost(self) -> None:
        if not self._losing:
            _log.error(LOST, lines=self._lost)
        self._losing = True
