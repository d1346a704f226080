"""The audit log, an observer of mint events."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from macp_auth.adapters.audit.destination import Destination
from macp_auth.adapters.audit.line import audit_line
from macp_auth.adapters.audit.writer import SUMMARY_SECONDS, LineWriter
from macp_auth.domain.allowance import Allowance
from macp_auth.domain.errors import AuditUnavailable
from macp_auth.domain.minting import MintEvent
from macp_auth.domain.worker_state import AuditHead

WHOLE_REFUSALS = 100
"""Refused requests with their own line per :data:`SUMMARY_SECONDS`; the rest is summarised."""
WRITE_SECONDS = 2.0
"""How long a token waits for its line: as long as for its signature."""


class AuditLog:
    """Records mint events. A token does not wait for its line.

    Args:
        destination: where to write.
        on_dropped: called with the number of dropped lines of tokens.
    """

    def __init__(self, destination: Destination, on_dropped: Callable[[int], object]) -> None:
        self._writer = LineWriter(destination, on_dropped)
        self._refusals = _Refusals(self._writer)

    def record(self, event: MintEvent) -> None:
        """Record ``event``."""
        if event.minted is not None:
            self._writer.put_minted(audit_line(event))
        else:
            self._refusals.record(event)

    def is_dropping(self) -> bool:
        """Return whether the log is losing lines of tokens."""
        return self._writer.dropping

    def head(self) -> AuditHead:
        """Return the last written line."""
        return self._writer.head

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write in the background, and write the rest at the end."""
        self._writer.start()
        try:
            yield
        finally:
            self._writer.close()


class RequiredAuditLog:
    """Records mint events. No token leaves before its line is written.

    Written means that write(2) returned: the line outlives the process, not a power failure.

    All tokens of one turn of the event loop share a write.

    Args:
        destination: where to write.
    """

    def __init__(self, destination: Destination) -> None:
        # A line that can't be written at the end is of a token that did not leave.
        self._writer = LineWriter(
            destination, lambda _: None, gather_seconds=0, on_written=self._report_written
        )
        self._refusals = _Refusals(self._writer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn: _Turn | None = None
        """The tokens of this turn."""
        self._turns: deque[_Turn] = deque()
        """Those whose lines are queued, in order."""
        self._queued = 0
        self._stalled = False

    def record(self, event: MintEvent) -> None:
        """Record ``event`` if it is a refusal; tokens are :meth:`recorded`."""
        if event.minted is None:
            self._refusals.record(event)

    async def recorded(self, event: MintEvent) -> None:
        """Return when the line of a token is written.

        Raises:
            AuditUnavailable: it is not written within :data:`WRITE_SECONDS`, or lines can't be written now.
                If it was queued, it may still be written.
        """
        if self.is_unavailable():
            raise AuditUnavailable
        loop = asyncio.get_running_loop()
        if (turn := self._turn) is None:
            turn = self._turn = _Turn()
            loop.call_soon(self._end_turn)
        written = loop.create_future()
        turn.lines.append(audit_line(event))
        turn.waiting.append(written)
        await written

    def is_unavailable(self) -> bool:
        """Return whether lines can't be written now."""
        return self._stalled or self._writer.in_trouble

    def head(self) -> AuditHead:
        """Return the last written line."""
        return self._writer.head

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write in the background, and write the rest at the end."""
        self._loop = asyncio.get_running_loop()
        self._writer.start()
        try:
            yield
        finally:
            self._end_turn()
            self._writer.close()

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is None:
            return
        room = self._writer.offer_minted(turn.lines)
        turn.give_up(room)
        self._queued += room
        turn.last = self._queued
        turn.timer = asyncio.get_running_loop().call_later(WRITE_SECONDS, self._expire, turn)
        self._turns.append(turn)

    def _expire(self, turn: _Turn) -> None:
        self._stalled = True
        turn.give_up()

    def _report_written(self, count: int) -> None:
        """Wake the event loop. Runs in the writer's thread."""
        assert self._loop is not None, "it runs"  # noqa: S101 - for mypy
        with suppress(RuntimeError):  # the loop was closed: nothing waits
            self._loop.call_soon_threadsafe(self._release, count)

    def _release(self, written: int) -> None:
        self._stalled = False
        while self._turns and self._turns[0].last <= written:
            self._turns.popleft().release()


class _Turn:
    """The tokens of one turn of the event loop."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.waiting: list[asyncio.Future[None]] = []
        self.last = 0
        """How many lines are written when all of this turn are."""
        self.timer: asyncio.TimerHandle | None = None

    def release(self) -> None:
        """Let the tokens leave."""
        if self.timer is not None:
            self.timer.cancel()
        for written in self.waiting:
            if not written.done():
                written.set_result(None)

    def give_up(self, first: int = 0) -> None:
        """Let no token leave from the number ``first`` on."""
        for written in self.waiting[first:]:
            if not written.done():
                written.set_exception(AuditUnavailable())


class _Refusals:
    """Records refused requests: each with a line, up to a rate."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer
        self._whole = Allowance(WHOLE_REFUSALS, SUMMARY_SECONDS)

    def record(self, event: MintEvent) -> None:
        if self._whole.take(time.monotonic()):
            self._writer.put_refused(audit_line(event), event.reason or "")
        else:
            self._writer.sum_up(event.reason or "")
