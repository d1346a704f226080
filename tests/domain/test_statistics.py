"""What a signer may tell of its work."""

from __future__ import annotations

import math
from typing import Any

import pytest

from macp_auth.domain.statistics import Distribution, sound_statistics


def test_a_value_is_counted_at_the_first_bound_that_it_does_not_exceed() -> None:
    """A bound holds what is equal to it, and the last count what exceeds all."""
    sizes = Distribution.over(1, 2, 4)
    for value in (1, 2, 3, 4, 5, 100):
        sizes.note(value)
    assert sizes.counts == [1, 1, 2, 2]
    assert sizes.total == 115


def test_good_numbers_are_kept() -> None:
    """Whole ones, broken ones and distributions."""
    reported = {"calls_total": 3, "seconds_left": 0.5, "size": Distribution((1.0, 2.0), [1, 0, 2], 9)}
    assert sound_statistics(reported) == reported


@pytest.mark.parametrize(
    "reported",
    [
        None,
        [("calls", 1)],
        {"calls": "1"},
        {"calls": math.nan},
        {"calls": math.inf},
        {"calls": None},
        {1: 1},
        {"Calls": 1},
        {"calls{kid=x}": 1},
        {"a\n": 1},
        {"a" * 81: 1},
        {"size": Distribution((1.0, 2.0), [1, 0])},
        {"size": Distribution((2.0, 1.0), [1, 0, 2])},
        {"size": Distribution((1.0,), [1, 0], math.nan)},
    ],
)
def test_what_can_t_be_shown_is_left_out(reported: Any) -> None:
    """A plugin may tell anything; none of it reaches the page of metrics."""
    assert sound_statistics(reported) == {}


def test_there_is_an_end_to_what_is_kept() -> None:
    """Each name is a time series in a user's database."""
    assert len(sound_statistics({f"n_{number}": number for number in range(1000)})) == 64
