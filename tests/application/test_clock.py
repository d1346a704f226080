"""The clocks of the machine: what is logged of a step, and the keys that outlast it."""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial

import pytest
from litestar import Litestar
from structlog.testing import capture_logs

from macp_auth.application import clock as trusted_clock
from macp_auth.application.clock import TrustedClock, steady_clock
from macp_auth.application.key_refresh import KeyRefresher
from macp_auth.application.key_ring import KeyRing
from macp_auth.domain.errors import ClockStepped
from macp_auth.domain.rotation import Timing
from tests.support.rotating import RotatingSigner
from tools.support.bounded import HANG_SECONDS

DAY = 86400.0
LEAD, LAG = 4500, 3720
APP = Litestar()


class Clocks:
    """A machine's clocks, in a test's hand."""

    def __init__(self) -> None:
        self.steady, self.ahead = 100.0, 0.0
        self.trusted = TrustedClock(
            tolerated=30, accept_after=None, wall=lambda: self.wall, steady=lambda: self.steady
        )

    @property
    def wall(self) -> float:
        return 1_800_000_000 + self.steady + self.ahead


def test_each_change_is_logged_once() -> None:
    """A step, its end, and an accepted tolerated one; not each check, and not each request."""
    clocks = Clocks()
    with capture_logs() as logs:
        for ahead, trusted in ((0, True), (DAY, False), (DAY, False), (0, True), (20, True)):
            clocks.ahead = ahead
            for _ in range(3):
                clocks.steady += 1
                assert clocks.trusted.is_trusted() is trusted
                assert clocks.trusted.offset == pytest.approx(ahead)
                if not trusted:
                    with pytest.raises(ClockStepped):
                        clocks.trusted.now()
        clocks.steady += 61
        assert clocks.trusted.is_trusted()
    assert [(log["log_level"], log["event"], log.get("seconds")) for log in logs] == [
        ("error", "clock stepped; no tokens until it is trusted again", DAY),
        ("info", "clock trusted again", None),
        ("warning", "clock step accepted", 20),
    ]


def test_a_step_is_seen_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check in the background ends with the service."""
    monkeypatch.setattr(trusted_clock, "CHECK_INTERVAL_SECONDS", 0.01)
    clocks = Clocks()

    async def live() -> None:
        async with clocks.trusted.running(), asyncio.timeout(HANG_SECONDS):
            clocks.ahead = DAY
            while clocks.trusted.offset == 0:  # noqa: ASYNC110 - nothing tells us when
                await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(live())


@pytest.mark.parametrize("step", [DAY, -DAY])
def test_no_key_comes_or_goes_because_the_clock_jumped(step: float) -> None:
    """A key that was replaced stays for its tokens, and one in its lead does not sign yet."""
    clocks = Clocks()
    begun = clocks.wall
    signer = RotatingSigner(old=begun - DAY, new=begun - LEAD - 60, next=begun)
    ring = KeyRing(signer, Timing(publish_lead=LEAD, retire_lag=LAG))
    refresher = KeyRefresher(ring, 0.01, source="rotating", now=clocks.trusted.adjusted)
    expected = {"old": "deactivated", "new": "active", "next": "pre-activation"}

    async def live() -> None:
        async with refresher.running(), asyncio.timeout(HANG_SECONDS):
            assert ring.keys.states == expected
            clocks.ahead = step
            assert not clocks.trusted.is_trusted()
            before = signer.readings
            while signer.readings < before + 5:  # noqa: ASYNC110 - nothing tells us when
                await asyncio.sleep(0.01)
            assert ring.keys.states == expected
            clocks.steady += LEAD  # time that really passes counts, though the clock is not trusted
            while signer.readings < before + 10:  # noqa: ASYNC110 - nothing tells us when
                await asyncio.sleep(0.01)
            assert ring.keys.states["next"] == "active"

    asyncio.run(live())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such clock")
def test_the_steady_clock_counts_the_time_that_a_machine_sleeps() -> None:
    """So that a machine that was asleep does not look like one whose clock was stepped."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= steady_clock() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert isinstance(steady_clock, partial)  # until it slept, another clock shows the same
    assert steady_clock.args == (time.CLOCK_BOOTTIME,)
