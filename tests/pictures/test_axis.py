"""Ticks of an axis are at the times that a reader would choose."""

from __future__ import annotations

import datetime as dt

import pytest

from macp_auth.entrypoints.pictures.axis import Tick, dates, elapsed

MIDNIGHT = dt.datetime(2026, 11, 30, tzinfo=dt.UTC).timestamp()
HOUR, DAY = 3600.0, 86400.0


def shown(ticks: list[Tick]) -> list[str]:
    return [f"{tick.label} {tick.context}".strip() for tick in ticks]


@pytest.mark.parametrize(
    ("begin", "length", "expected"),
    [
        (-0.5 * HOUR, 3 * HOUR, ["00:00 30 Nov 2026", "01:00", "02:00"]),
        (-1.5 * HOUR, 4 * HOUR, ["23:00 29 Nov 2026", "00:00 30 Nov", "01:00", "02:00"]),
        (60, 600, ["00:05 30 Nov 2026", "00:10"]),
        (1, 3 * DAY, ["1 Dec 2026", "2 Dec", "3 Dec"]),
        (1, 30 * DAY, ["7 Dec 2026", "14 Dec", "21 Dec", "28 Dec"]),
        (-59 * DAY, 130 * DAY, ["Nov 2026", "Dec", "Jan 2027", "Feb"]),
        (-3 * 365 * DAY, 6 * 365 * DAY, ["Jan 2024", "Jan 2026", "Jan 2028"]),
    ],
)
def test_dates_are_round_and_new_days_and_years_are_named(
    begin: float, length: float, expected: list[str]
) -> None:
    """Minutes, hours, days, Mondays, months, years: the finest with at most four."""
    end = MIDNIGHT + begin + length
    assert shown(dates(MIDNIGHT + begin, end, 4)) == expected


def test_the_last_date_of_the_calendar_ends_no_axis_with_an_error() -> None:
    """A keys file may have any time."""
    end = dt.datetime(9999, 12, 31, tzinfo=dt.UTC).timestamp()
    assert dates(end - 100 * 365 * DAY, end, 4)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (4, ["start", "2s", "4s"]),
        (100, ["start", "30s", "1m", "1m 30s"]),
        (9 * HOUR, ["start", "3h", "6h", "9h"]),
        (100.0 * DAY, ["start", "50d", "100d"]),
        (20_000 * DAY, ["start", "10000d", "20000d"]),
    ],
)
def test_elapsed_time_counts_from_the_start(end: float, expected: list[str]) -> None:
    assert shown(elapsed(0, end, 4)) == expected
