"""The audit log as the service uses it: an observer of every mint event, for as long as it runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from macp_auth.adapters.allowance import Allowance
from macp_auth.adapters.audit.destination import Destination
from macp_auth.adapters.audit.line import audit_line
from macp_auth.adapters.audit.writer import SUMMARY_SECONDS, LineWriter
from macp_auth.domain.minting import MintEvent

WHOLE_REFUSALS = 100
"""So many have a line of their own in :data:`SUMMARY_SECONDS`; the rest is summed up."""


class AuditLog:
    """Records mint events.

    Args:
        destination: where it goes.
        on_dropped: called with the number of lines of tokens that could not be kept.
    """

    def __init__(self, destination: Destination, on_dropped: Callable[[int], object]) -> None:
        self._writer = LineWriter(destination, on_dropped)
        self._whole_refusals = Allowance(WHOLE_REFUSALS, SUMMARY_SECONDS)

    def record(self, event: MintEvent) -> None:
        """Record ``event``: an observer."""
        if event.minted is not None:
            self._writer.put_minted(audit_line(event))
        elif self._whole_refusals.take(time.monotonic()):
            self._writer.put_refused(audit_line(event), event.reason or "")
        else:
            self._writer.sum_up(event.reason or "")

    def is_dropping(self) -> bool:
        """Return whether tokens are minted that the log can't tell of."""
        return self._writer.dropping

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write in the background, and at the end what is left."""
        self._writer.start()
        try:
            yield
        finally:
            self._writer.close()
