"""When a source mints: the rules alone, with time as an argument."""

from __future__ import annotations

import pytest

from macp_auth_client import MintRefused, MintUnavailable
from macp_auth_client.schedule import Schedule, Token

SPREAD = range(200)
"""Times of a draw: enough to see both ends of what is random."""


def _with_token(lifetime: float, at: float = 100.0) -> Schedule:
    schedule = Schedule()
    schedule.minted(Token("a.b.c", lifetime, at))
    return schedule


def test_without_a_token_a_request_is_due() -> None:
    """At any time."""
    assert Schedule().due(0.0)
    assert Schedule().live(0.0) is None


@pytest.mark.parametrize(("lifetime", "margin"), [(600, 5), (300, 5), (25, 5), (10, 2), (1, 0.2)])
def test_a_token_is_handed_out_until_shortly_before_its_end(lifetime: float, margin: float) -> None:
    """Five seconds, or a fifth of a short lifetime, counted from the beginning of the request."""
    schedule = _with_token(lifetime)
    end = 100 + lifetime - margin
    assert (schedule.live(100), schedule.live(end - 0.01), schedule.live(end)) == ("a.b.c", "a.b.c", None)
    assert schedule.remaining(100) == pytest.approx(lifetime - margin)
    assert schedule.remaining(end + 1) == 0
    assert schedule.due(end)


def test_a_refresh_is_due_at_two_thirds_of_the_lifetime_or_a_tenth_before() -> None:
    """Spread over that tenth, and never later: the last third is for outages."""
    seen = []
    for _ in SPREAD:
        schedule = _with_token(300)
        assert not schedule.due(100 + 169.9)
        assert schedule.due(100 + 200)
        seen.append(next(at for at in range(270, 301) if schedule.due(at)))
    assert min(seen) < 275
    assert max(seen) > 295


def test_failures_are_further_and_further_apart() -> None:
    """From half a second, with a spread of a half, up to ten seconds. A token begins it again."""
    for _ in SPREAD:
        schedule = Schedule()
        for longest in (0.5, 1, 2, 4, 8, 10, 10):
            schedule.failed(MintUnavailable("x"), 100)
            assert longest / 2 <= schedule.pause(100) <= longest
            assert not schedule.due(100 + longest / 2 - 0.01)
            assert schedule.due(100 + longest)
        schedule.minted(Token("a.b.c", 300, 200))
        assert schedule.failure is None
        schedule.failed(MintUnavailable("x"), 300)
        assert schedule.pause(300) <= 0.5


@pytest.mark.parametrize(
    ("asked", "least", "most"), [(3, 3, 3.75), (0, 0.25, 0.5), (10**9, 60, 75), (None, 0.25, 0.5)]
)
def test_retry_after_is_the_least(asked: float | None, least: float, most: float) -> None:
    """With up to a quarter more, so that not all come at once; and a minute at most is believed."""
    for _ in SPREAD:
        schedule = Schedule()
        schedule.failed(MintUnavailable("x", 503, asked), 100)
        assert least <= schedule.pause(100) <= most


def test_a_failed_refresh_leaves_the_token() -> None:
    """As long as it lives, whatever the failure."""
    schedule = _with_token(300)
    schedule.failed(MintRefused("x", 403), 300)
    assert schedule.live(394) == "a.b.c"
    assert not schedule.due(300)
    assert schedule.due(301)


def test_only_the_current_token_can_be_invalidated() -> None:
    """Its second request may begin a second after its first."""
    schedule = _with_token(300)
    schedule.invalidate("x.y.z")
    assert schedule.live(100) == "a.b.c"
    schedule.invalidate("a.b.c")
    assert schedule.live(100) is None
    assert schedule.remaining(100) == 0
    assert not schedule.due(100.9)
    assert schedule.due(101)


def test_an_older_answer_does_not_replace_a_newer_one() -> None:
    """As that of a request that took too long."""
    schedule = _with_token(300)
    schedule.minted(Token("old.old.old", 300, 99))
    assert schedule.live(100) == "a.b.c"


def test_a_token_does_not_show_in_a_repr() -> None:
    """Nor in a traceback with local variables, or a log."""
    assert "a.b.c" not in repr(Token("a.b.c", 300, 100))
