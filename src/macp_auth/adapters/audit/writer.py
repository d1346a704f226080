"""Writes audit lines in a separate thread, so that a slow disk or pipe never blocks the event loop.

Lines wait in memory while they can't be written. Lines of tokens have their own buffer and are written
first; when it is full, they are dropped and counted. Refusals, which any caller can cause, can't use
that buffer; those without a line are summarised.

The thread links each line to the one before it as it writes them, so the chain has the order of the file.

This thread also logs its own trouble: what blocks standard output may block standard error too, and the
event loop must not wait.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

import structlog

from macp_auth.adapters.audit.chain import HEAD_EVENT, Chain
from macp_auth.adapters.audit.destination import Destination
from macp_auth.adapters.audit.line import dropped_line, summary_line
from macp_auth.adapters.audit.waiting import LineQueue, Tally
from macp_auth.domain.worker_state import AuditHead

GATHER_SECONDS = 0.02
"""How long a line waits to be written together with others; a killed process may lose this much."""
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 1.0
"""How long to try to write the last lines."""
MINTED_BYTES = 8 * 2**20
"""About 17,000 typical lines, or 2,000 of the longest."""
REFUSED_BYTES = 2**20
SUMMARY_SECONDS = 10.0
"""The period of a summary of refusals."""
HEAD_SECONDS = 60.0
"""How often the head of the chain is logged, if it changed: what was written since is covered by no log."""
_BATCH = 256  # lines
_FINAL_RETRY_SECONDS = 0.05
_FINAL_WAIT_SECONDS = 2.0  # the thread may wait for a full pipe first, and a busy machine runs it late
_LINES = "lines"
TROUBLE = "cannot write audit log; keeping lines in memory"
DROPPED = "audit lines dropped"
RECOVERED = "audit log written again"
_log = structlog.get_logger()


class LineWriter:
    """Appends lines to a destination.

    Args:
        destination: where to write.
        on_dropped: called with the number of dropped lines of tokens; must return at once.
        gather_seconds: how long a line waits to be written together with others.
        on_written: called in the writer's thread with the number of lines of tokens written so far; must
            return at once.
    """

    def __init__(
        self,
        destination: Destination,
        on_dropped: Callable[[int], object],
        *,
        gather_seconds: float = GATHER_SECONDS,
        on_written: Callable[[int], object] | None = None,
    ) -> None:
        self._destination = destination
        self._chain = Chain()
        self._logged_seq = 0
        self._head_due: float | None = None
        self._on_dropped = on_dropped
        self._gather_seconds = gather_seconds
        self._on_written = on_written
        self._written = 0
        self._minted = LineQueue(MINTED_BYTES)
        self._refused = LineQueue(REFUSED_BYTES)
        self._dropped = Tally()
        self._summed = Tally()
        self._summary_due: float | None = None
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="audit-log")
        self._in_trouble = False
        self._drop_logged = False

    @property
    def dropping(self) -> bool:
        """Whether lines of tokens were dropped that the log does not report yet."""
        return self._dropped.unreported > 0

    @property
    def in_trouble(self) -> bool:
        """Whether the last write failed."""
        return self._in_trouble

    @property
    def head(self) -> AuditHead:
        """The last written line."""
        return self._chain.head

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put_minted(self, line: bytes) -> None:
        """Queue the line of a token. Returns at once, whatever the state of the destination."""
        if not self._minted.put(line):
            self._dropped.count(_LINES, time.time())
            self._on_dropped(1)
        self._wake_up()

    def offer_minted(self, lines: Sequence[bytes]) -> int:
        """Queue the lines of tokens that have not left; return for how many of the first there is room."""
        taken = 0
        for line in lines:
            if not self._minted.put(line):
                break
            taken += 1
        self._wake_up()
        return taken

    def put_refused(self, line: bytes, reason: str) -> None:
        """Queue the line of a refusal, after those of tokens; summarise it if there is no room."""
        if not self._refused.put(line):
            self._summed.count(reason, time.time())
        self._wake_up()

    def sum_up(self, reason: str) -> None:
        """Count a refusal without a line."""
        self._summed.count(reason, time.time())
        self._wake_up()

    def close(self) -> None:
        """Try for a short time to write the waiting lines, those of tokens first, and end."""
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS + _FINAL_WAIT_SECONDS)

    def _wake_up(self) -> None:
        if not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._until_due())
            if self._gather_seconds:
                self._closing.wait(self._gather_seconds)
            self._wake.clear()
            while not self._write_all() and not self._closing.wait(RETRY_SECONDS):
                self._log_head_if_due()
            self._log_head_if_due()
        self._write_last()
        self._destination.close()
        self._log_head()

    def _write_last(self) -> None:
        deadline = time.monotonic() + CLOSE_SECONDS
        while not self._write_all():
            if time.monotonic() > deadline:
                self._on_dropped(len(self._minted))
                dropped = len(self._minted) + self._dropped.unreported
                refused = len(self._refused) + self._summed.unreported
                _log.error(DROPPED, lines=dropped, refused=refused)
                break
            time.sleep(_FINAL_RETRY_SECONDS)

    def _until_due(self) -> float | None:
        """Return the seconds until there is something to do without a new line; None if there is nothing."""
        summary, head = self._until_summary(), self._until_head()
        return head if summary is None else summary if head is None else min(summary, head)

    def _until_head(self) -> float | None:
        now = time.monotonic()
        if self._chain.head.seq == self._logged_seq:
            self._head_due = None
        elif self._head_due is None:
            self._head_due = now + HEAD_SECONDS
        return None if self._head_due is None else max(0, self._head_due - now)

    def _log_head_if_due(self) -> None:
        if self._until_head() == 0:
            self._log_head()

    def _log_head(self) -> None:
        head = self._chain.head
        if head.seq != self._logged_seq:
            _log.info(HEAD_EVENT, writer=head.writer, seq=head.seq, sha256=head.sha256)
        self._logged_seq, self._head_due = head.seq, None

    def _until_summary(self) -> float | None:
        """Return the seconds until the next summary; None if there is nothing to summarise."""
        now = time.monotonic()
        if not self._summed.unreported:
            self._summary_due = None
        elif self._summary_due is None:
            self._summary_due = now + SUMMARY_SECONDS
        return None if self._summary_due is None else max(0, self._summary_due - now)

    def _write_all(self) -> bool:
        """Write all waiting lines; return whether that succeeded."""
        try:
            while (queue := self._next()) is not None:
                self._write_some(queue)
        except OSError as error:
            self._log_trouble(os.strerror(error.errno or 0))
            return False
        if self._in_trouble:
            _log.info(RECOVERED, dropped=self._dropped.total)
        self._in_trouble = self._drop_logged = False
        return True

    def _next(self) -> LineQueue | None:
        """Return the first non-empty queue by priority, or None."""
        if self._minted:
            return self._minted
        if self._dropped.unreported:
            self._log_dropped()
            gap, now = self._dropped.report(time.time()), time.time()
            self._written -= 1  # it is not the line of a token
            self._minted.put_back([dropped_line(sum(gap.counts.values()), gap.since, now)])
            return self._minted
        if self._refused:
            return self._refused
        if self._until_summary() == 0 or (self._closing.is_set() and self._summed.unreported):
            summed, now = self._summed.report(time.time()), time.time()
            self._refused.put_back([summary_line(summed.counts, summed.since, now)])
            self._summary_due = None
            return self._refused
        return None

    def _write_some(self, queue: LineQueue) -> None:
        self._destination.open()
        batch = queue.take(_BATCH)
        written = 0
        try:
            written = self._destination.append(self._chain.link(batch, self._destination.max_bytes))
            self._chain.written(written)
        finally:
            queue.put_back(batch[written:])
        if queue is self._minted:
            self._written += written
            if self._on_written is not None:
                self._on_written(self._written)

    def _log_trouble(self, reason: str) -> None:
        if not self._in_trouble:
            _log.error(TROUBLE, reason=reason)
        self._in_trouble = True
        if self._dropped.unreported:
            self._log_dropped()

    def _log_dropped(self) -> None:
        if not self._drop_logged:
            _log.error(DROPPED, lines=self._dropped.total)
        self._drop_logged = True
