"""The audit log as the service uses it: told of every mint attempt, for as long as the service runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from litestar import Litestar

from macp_auth.entrypoints.audit.destination import Destination
from macp_auth.entrypoints.audit.line import audit_line, lost_line
from macp_auth.entrypoints.audit.writer import LineWriter
from macp_auth.entrypoints.http.attempts import MintAttempt


class AuditLog:
    """Records mint attempts.

    Args:
        destination: where, as the setting names it.
        on_lost: told of so many lines that could not be kept.
    """

    def __init__(self, destination: str, on_lost: Callable[[int], None]) -> None:
        self._writer = LineWriter(
            Destination(destination), lambda lines: lost_line(lines, time.time()), on_lost
        )

    def record(self, attempt: MintAttempt) -> None:
        """Record ``attempt``: an observer."""
        self._writer.put(audit_line(attempt))

    @asynccontextmanager
    async def lifespan(self, _app: Litestar) -> AsyncIterator[None]:
        """Write in the background, and at the end what is left."""
        self._writer.start()
        try:
            yield
        finally:
            self._writer.close()
