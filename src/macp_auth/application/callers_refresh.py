"""Keeps the rules of the callers file fresh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

import structlog

from macp_auth.application.background import in_background
from macp_auth.domain.access import AccessRules
from macp_auth.domain.errors import CallersUnavailable, ConfigurationError

POLL_INTERVAL_SECONDS = 2.0
"""As for TLS files."""
_log = structlog.get_logger()


class CallersRefresher:
    """Holds the rules of the last good reading of the callers file.

    Args:
        read: returns the rules of the file, or None if it is as at the last call. Raises ConfigurationError
            if it is unusable.
    """

    def __init__(self, read: Callable[[], Awaitable[AccessRules | None]]) -> None:
        self._read = read
        self._rules: AccessRules | None = None
        self._failure: str | None = None

    @property
    def failing(self) -> bool:
        """Whether the last reading failed."""
        return self._failure is not None

    def is_empty(self) -> bool:
        """Return whether there are no rules yet."""
        return self._rules is None

    def current(self) -> AccessRules | None:
        """Return the rules in use, if any."""
        return self._rules

    def rules(self) -> AccessRules:
        """Return the rules in use.

        Raises:
            CallersUnavailable: the file was unusable since this process began.
        """
        if self._rules is None:
            raise CallersUnavailable("no usable callers file since the start")
        return self._rules

    async def refresh(self) -> None:
        """Read the file. If it is unusable, keep the last good rules and log each new failure once."""
        try:
            rules = await self._read()
        except ConfigurationError as error:
            if str(error) != self._failure:
                _log.error("cannot use the callers file; keeping the last good one", detail=str(error))
            self._failure = str(error)
            return
        self._failure = None
        if rules is not None:
            self._rules = rules
            _log.info("callers file")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the file until the context exits."""
        await self.refresh()
        async with in_background(self._follow()):
            yield

    async def _follow(self) -> NoReturn:
        while True:
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
            try:
                await self.refresh()
            except Exception:  # noqa: BLE001 - the next reading may succeed
                _log.exception("reading the callers file failed; reading it again")
