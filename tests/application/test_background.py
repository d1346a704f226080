"""Work beside the requests: it ends with its context, and never in silence."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from macp_auth.application.background import in_background


async def never_ends() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError


async def breaks() -> NoReturn:
    raise ZeroDivisionError


def test_work_that_breaks_is_logged_when_it_does() -> None:
    """Not only at the end, which may be weeks away; and it does not keep from ending what comes after."""

    async def serve() -> None:
        with capture_logs() as logs:
            async with in_background(breaks()):
                await asyncio.sleep(0.01)
                [line] = logs
            assert logs == [line]
        assert line["event"] == "background task failed; restart the service"
        assert isinstance(line["exc_info"], ZeroDivisionError)

    asyncio.run(serve())


def test_work_that_is_cancelled_at_the_end_is_not_logged() -> None:
    async def serve() -> None:
        with capture_logs() as logs:
            async with in_background(never_ends()):
                await asyncio.sleep(0)
        assert logs == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(serve())


def test_a_cancellation_of_the_service_is_not_taken_for_that_of_the_work() -> None:
    """It comes while the work takes its time to end."""

    async def ends_slowly() -> NoReturn:
        try:
            await never_ends()
        finally:
            await asyncio.sleep(0.05)

    async def serve() -> None:
        async with in_background(ends_slowly()):
            await asyncio.sleep(0.01)

    async def cancel() -> None:
        serving = asyncio.create_task(serve())
        await asyncio.sleep(0.03)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    asyncio.run(cancel())
