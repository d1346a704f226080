"""Blocking calls: the wait is limited, and a late result is kept."""

from __future__ import annotations

import asyncio
import threading

import pytest

from macp_auth.adapters.blocking_call import BlockingCall
from tools.support.bounded import HANG_SECONDS
from tools.support.service import wait_until


class Slow:
    """Answers when it is let go, and counts its calls."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0

    def __call__(self) -> int:
        self.go.wait(HANG_SECONDS)
        self.calls += 1
        return self.calls


def test_an_outcome_that_comes_late_is_for_who_asks_next() -> None:
    """A call that is always slower than its callers wait would else never have one."""
    slow = Slow()
    call = BlockingCall(slow, "slow")
    with pytest.raises(TimeoutError):
        call.result(0.01)
    slow.go.set()
    wait_until(lambda: slow.calls == 1, within=HANG_SECONDS, what="it ends")
    assert call.result(HANG_SECONDS) == 1
    assert call.result(HANG_SECONDS) == 2, "each outcome is handed out once"


def test_on_an_event_loop_too() -> None:
    """And callers that wait together share a call."""
    slow = Slow()
    call = BlockingCall(slow, "slow")

    async def run() -> None:
        with pytest.raises(TimeoutError):
            await call.result_async(0.01)
        together = asyncio.gather(*(call.result_async(HANG_SECONDS) for _ in range(2)))
        await asyncio.sleep(0)  # both wait; from Python 3.14 on, a result that is there is taken at once
        slow.go.set()
        assert await together == [1, 1]
        assert await call.result_async(HANG_SECONDS) == 2

    asyncio.run(run())
