"""Ticks of a time axis at round times, as a reader counts: minutes, hours, days, months, years."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator
from itertools import count, pairwise, takewhile

from msgspec import Struct

from macp_auth.entrypoints.pictures.times import duration

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SECONDS = (1, 2, 5, 10, 15, 30)
_STEPS = (
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
    *(days * _DAY for days in (1, 2, 7, 14)),
)
_MONDAY = 4 * _DAY
"""The first one after the epoch, in seconds."""
_MONTH_STEPS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600)


class Tick(Struct, frozen=True):
    """A tick and its label."""

    at: float
    label: str
    context: str = ""
    """The day or the year, where it begins."""


Ticks = Callable[[float, float, int], list[Tick]]
"""Returns at most so many ticks between two times."""


def dates(begin: float, end: float, most: int) -> list[Tick]:
    """Return ticks of an axis of dates in UTC; times in seconds since the epoch."""
    for step in _STEPS:
        offset = _MONDAY if step % (7 * _DAY) == 0 else 0
        if len(numbers := _numbers(begin, end, step, offset)) <= most:
            found = [float(number * step + offset) for number in numbers]
            if step < _DAY:
                return _labelled(found, "%H:%M", "%-d %b", "%-d %b %Y")
            return _labelled(found, "%-d %b", "%Y", "%Y")
    for months in _MONTH_STEPS:
        if len(found := list(_months(begin, end, months))) <= most:
            return _labelled(found, "%b", "%Y", "%Y")
    return []


def elapsed(begin: float, end: float, most: int) -> list[Tick]:
    """Return ticks of an axis of seconds since a start."""
    days = (first * 10**power * _DAY for power in count(1) for first in (2, 5, 10))
    for step in (*_SECONDS, *_STEPS, *takewhile(lambda step: step < end - begin, days)):
        if len(numbers := _numbers(begin, end, step)) <= most:
            return [Tick(number * step, duration(number * step) if number else "start") for number in numbers]
    return []


def _numbers(begin: float, end: float, step: int, offset: int = 0) -> range:
    """Return the numbers of the steps between two times."""
    return range(math.ceil((begin - offset) / step), math.floor((end - offset) / step) + 1)


def _months(begin: float, end: float, step: int) -> Iterator[float]:
    first = dt.datetime.fromtimestamp(begin, dt.UTC)
    for month in count(first.year * 12 // step * step, step):
        year, index = divmod(month, 12)
        if year > dt.MAXYEAR or (at := dt.datetime(year, index + 1, 1, tzinfo=dt.UTC).timestamp()) > end:
            return
        if at >= begin:
            yield at


def _labelled(times: list[float], label: str, context: str, first: str) -> list[Tick]:
    """Return the ticks; the first has its context in the format ``first``, and each other one that is new."""
    moments = [dt.datetime.fromtimestamp(at, dt.UTC) for at in times]
    contexts = [moment.strftime(context) for moment in moments]
    shown = [moments[0].strftime(first)] if moments else []
    shown += [new if new != old else "" for old, new in pairwise(contexts)]
    return [
        Tick(at, moment.strftime(label), text) for at, moment, text in zip(times, moments, shown, strict=True)
    ]
