"""The rules in use are those of the last good reading."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from macp_auth.application.callers_refresh import CallersRefresher
from macp_auth.domain.access import AccessRules
from macp_auth.domain.callers import AuthenticatorChain
from macp_auth.domain.errors import CallersUnavailable, ConfigurationError
from macp_auth.domain.grants import Grants

FIRST, SECOND = (AccessRules(AuthenticatorChain([]), Grants({})) for _ in range(2))


class File:
    """A callers file whose readings are set."""

    def __init__(self) -> None:
        self.reading: AccessRules | ConfigurationError | None = FIRST

    async def read(self) -> AccessRules | None:
        if isinstance(self.reading, ConfigurationError):
            raise self.reading
        return self.reading


def test_the_last_good_reading_decides() -> None:
    """A failure keeps it and is logged once; the next good reading takes its place."""
    file = File()
    callers = CallersRefresher(file.read)
    with pytest.raises(CallersUnavailable):
        callers.rules()
    assert callers.is_empty()
    asyncio.run(callers.refresh())
    assert callers.rules() is FIRST
    file.reading = ConfigurationError("broken")
    with capture_logs() as lines:
        for _ in range(3):
            asyncio.run(callers.refresh())
    assert (callers.rules() is FIRST, callers.failing) == (True, True)
    assert [line["log_level"] for line in lines] == ["error"]
    file.reading = None
    asyncio.run(callers.refresh())
    assert (callers.rules() is FIRST, callers.failing) == (True, False)
    file.reading = SECOND
    asyncio.run(callers.refresh())
    assert callers.rules() is SECOND
