"""The order of the checks, where a clock that is not trusted comes in."""

from __future__ import annotations

import asyncio

import pytest

from macp_auth.domain.clock import TimeInterval
from macp_auth.domain.errors import ClockStepped, InvalidScopes, InvalidSender, InvalidTTL, MACPAuthError
from macp_auth.domain.minting import TokenRequest
from tests.support.desk import minter_over


def no_time() -> TimeInterval:
    raise ClockStepped("stepped")


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (TokenRequest(sender="", scopes={}), InvalidSender),
        (TokenRequest(sender="a", scopes=1), InvalidScopes),
        (TokenRequest(sender="a", scopes={}, ttl_seconds=0), InvalidTTL),
        (TokenRequest(sender="a", scopes={}), ClockStepped),
    ],
)
def test_a_bad_request_is_refused_before_the_clock_is_asked(
    request_: TokenRequest, error: type[MACPAuthError]
) -> None:
    """Otherwise its caller would retry for ever."""
    with pytest.raises(error):
        asyncio.run(minter_over(60).minter.mint(request_, None, no_time))
