"""Clock steps: when tokens are issued, with which times, and what the keys' schedule sees of them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from macp_auth.domain.clock import NOISE_SECONDS, SETTLE_SECONDS, ClockMonitor, TimeInterval
from macp_auth.domain.errors import ClockStepped
from tests.support.desk import minter_over

START = 1_800_000_000.0
TOLERATED = 30
DAY = 86400.0


class Clocks:
    """A wall clock that can be stepped, a steady clock, and what is made of them."""

    def __init__(self, *, accept_after: float | None = None) -> None:
        self.steady = 500.0
        self.ahead = 0.0
        self.settled = 0.0
        self.monitor = ClockMonitor(START, self.steady, tolerated=TOLERATED, accept_after=accept_after)

    @property
    def true(self) -> float:
        """What the time would be if the clock had never been stepped."""
        return START + self.steady - 500

    @property
    def wall(self) -> float:
        return self.true + self.ahead

    def step(self, seconds: float) -> None:
        self.ahead += seconds

    def check(self) -> None:
        self.settled += self.monitor.check(self.wall, self.steady)

    def live(self, seconds: float) -> None:
        """Let time pass, with a check per second."""
        for _ in range(int(seconds)):
            self.steady += 1
            self.check()
        self.steady += seconds - int(seconds)

    def now(self) -> TimeInterval:
        self.check()
        return self.monitor.interval(self.wall, self.steady)

    def issues(self) -> bool:
        try:
            self.now()
        except ClockStepped:
            return False
        return True


def issued_at(clocks: Clocks) -> list[float]:
    now = clocks.now()
    return [now.earliest, now.latest]


def test_without_steps_it_is_the_wall_clock() -> None:
    clocks = Clocks()
    clocks.live(10 * DAY)
    assert clocks.now() == TimeInterval(clocks.wall, clocks.wall)
    assert clocks.monitor.offset == 0


@pytest.mark.parametrize("step", [0.9, -0.9])
def test_less_than_a_second_is_no_step(step: float) -> None:
    """The shortest token is minted for as long as that lasts, whichever part of a second it is."""
    clocks = Clocks()
    clocks.step(step)
    for _ in range(20):
        clocks.live(0.05)
        now = clocks.now()
        assert now == TimeInterval(clocks.wall, clocks.wall)
        assert asyncio.run(minter_over(1).issue(now)).token


@pytest.mark.parametrize("step", [31, -31, 3600, -3600, DAY, -DAY, 10 * 365 * DAY])
def test_after_a_large_step_nothing_is_issued_until_it_is_undone(step: float) -> None:
    """However long that takes: waiting proves nothing. The offset shows all the while."""
    clocks = Clocks()
    clocks.live(100)
    clocks.step(step)
    assert not clocks.issues()
    clocks.live(2 * DAY)
    assert not clocks.issues()
    assert clocks.monitor.offset == pytest.approx(step)
    clocks.step(-step)
    assert clocks.now() == TimeInterval(clocks.wall, clocks.wall)
    assert clocks.monitor.offset == pytest.approx(0)


def test_a_clock_that_comes_back_nearly_is_trusted() -> None:
    """Within the tolerated step of where it should be."""
    clocks = Clocks()
    clocks.step(DAY)
    assert not clocks.issues()
    clocks.step(-DAY + 20)
    assert issued_at(clocks) == pytest.approx([clocks.true, clocks.wall])


@pytest.mark.parametrize("step", [2, -2, 30, -30])
def test_after_a_tolerated_step_both_clocks_count_until_it_is_settled(step: float) -> None:
    """The earlier time issues; after a minute without another step, the wall clock is believed."""
    clocks = Clocks()
    clocks.step(step)
    for _ in range(int(SETTLE_SECONDS) - 1):
        assert issued_at(clocks) == pytest.approx(sorted((clocks.true, clocks.wall)))
        clocks.live(1)
    clocks.live(2)
    assert clocks.now() == TimeInterval(clocks.wall, clocks.wall)
    assert clocks.settled == pytest.approx(step)
    assert clocks.monitor.offset == 0


def test_steps_that_follow_each_other_settle_nothing() -> None:
    """Tolerated ones add up, and what they add up to is not tolerated."""
    clocks = Clocks()
    for _ in range(4):
        assert clocks.issues()
        clocks.step(10)
        clocks.live(SETTLE_SECONDS - 2)
    assert not clocks.issues()


def test_small_steps_that_settle_are_followed_for_ever() -> None:
    """A steady clock that runs wrong by seconds a day, and a wall clock that NTP steps back into place."""
    clocks = Clocks()
    for _ in range(200):
        clocks.step(0.5)
        clocks.live(300)
        assert clocks.issues()
    assert abs(clocks.monitor.offset) <= NOISE_SECONDS
    assert clocks.settled == pytest.approx(100, abs=NOISE_SECONDS)


def test_a_large_step_is_believed_in_time_if_that_is_wished() -> None:
    """Counted from the last step."""
    clocks = Clocks(accept_after=600)
    clocks.step(DAY)
    clocks.live(599)
    clocks.step(DAY)
    clocks.live(599)
    assert not clocks.issues()
    clocks.live(2)
    assert clocks.now() == TimeInterval(clocks.wall, clocks.wall)
    assert clocks.settled == pytest.approx(2 * DAY)


def test_the_time_of_the_schedule_goes_on_through_a_pause() -> None:
    """A key is not dropped because the clock leapt ahead, and not published longer because it leapt back."""
    clocks = Clocks()
    for step in (DAY, -2 * DAY):
        clocks.step(step)
        clocks.check()
        clocks.live(1000)
        assert clocks.monitor.time(clocks.steady) == pytest.approx(clocks.true)


STEPS = st.one_of(
    st.floats(-2 * TOLERATED, 2 * TOLERATED), st.floats(-2, 2), st.sampled_from([DAY, -DAY, 3600.0])
)


@given(st.lists(st.tuples(STEPS, st.floats(0, 50)), max_size=12), st.integers(1, 3600))
def test_no_token_is_born_dead_or_lives_long(history: list[tuple[float, float]], ttl: int) -> None:
    """By the wall clock or by the steady one, beyond a second, after any steps."""
    clocks = Clocks()
    minter = minter_over(ttl)
    for step, seconds in history:
        clocks.step(step)
        clocks.live(seconds)
        try:
            now = clocks.now()
            claims = asyncio.run(minter.issue(now)).claims
        except ClockStepped:
            continue
        for clock in (clocks.wall, clocks.true + clocks.settled):
            assert claims.exp > clock - NOISE_SECONDS
            assert claims.exp - clock <= ttl + NOISE_SECONDS


def test_a_token_that_one_clock_would_find_dead_is_not_made() -> None:
    """20 s apart: 20 s are too short, 21 s are not; without a step, one second will do."""
    now = TimeInterval(START, START + 20)
    with pytest.raises(ClockStepped):
        asyncio.run(minter_over(20).issue(now))
    assert asyncio.run(minter_over(21).issue(now)).claims.exp == START + 21
    assert asyncio.run(minter_over(1).issue(TimeInterval(START + 0.99, START + 0.99))).claims.exp == START + 1
