"""The audit log, an observer of mint events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from macp_auth.adapters.audit.destination import Destination
from macp_auth.adapters.audit.line import audit_line
from macp_auth.adapters.audit.writer import SUMMARY_SECONDS, LineWriter
from macp_auth.domain.allowance import Allowance
from macp_auth.domain.minting import MintEvent

WHOLE_REFUSALS = 100
"""Refused requests with their own line per :data:`SUMMARY_SECONDS`; the rest is summarised."""


class AuditLog:
    """Records mint events.

    Args:
        destination: where to write.
        on_dropped: called with the number of dropped lines of tokens.
    """

    def __init__(self, destination: Destination, on_dropped: Callable[[int], object]) -> None:
        self._writer = LineWriter(destination, on_dropped)
        self._whole_refusals = Allowance(WHOLE_REFUSALS, SUMMARY_SECONDS)

    def record(self, event: MintEvent) -> None:
        """Record ``event``."""
        if event.minted is not None:
            self._writer.put_minted(audit_line(event))
        elif self._whole_refusals.take(time.monotonic()):
            self._writer.put_refused(audit_line(event), event.reason or "")
        else:
            self._writer.sum_up(event.reason or "")

    def is_dropping(self) -> bool:
        """Return whether the log is losing lines of tokens."""
        return self._writer.dropping

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write in the background, and write the rest at the end."""
        self._writer.start()
        try:
            yield
        finally:
            self._writer.close()
