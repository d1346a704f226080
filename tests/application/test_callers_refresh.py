"""The rules in force are those of the last good reading."""

from __future__ import annotations

import asyncio

import pytest

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


def test_the_last_good_reading_decides(capsys: pytest.CaptureFixture[str]) -> None:
    """A failure keeps it and is logged once; the next good reading takes its place."""
    file = File()
    callers = CallersRefresher(file.read)
    with pytest.raises(CallersUnavailable):
        callers.rules()
    assert callers.is_empty()
    asyncio.run(callers.refresh())
    assert callers.rules() is FIRST
    file.reading = ConfigurationError("broken")
    for _ in range(3):
        asyncio.run(callers.refresh())
    assert (callers.rules() is FIRST, callers.failing) == (True, True)
    assert capsys.readouterr().out.count("cannot use the callers file") == 1
    file.reading = None
    asyncio.run(callers.refresh())
    assert (callers.rules() is FIRST, callers.failing) == (True, False)
    file.reading = SECOND
    asyncio.run(callers.refresh())
    assert callers.rules() is SECOND
