"""What a signer may tell of its own work, in numbers that need no metrics library."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Self

from msgspec import Struct


class Distribution(Struct):
    """How often a value fell within which bound. Noting one costs a fraction of a microsecond."""

    bounds: Sequence[float]
    """In ascending order; each counts what is not greater than it, and not within the one before."""
    counts: list[int]
    """One more than there are bounds: the last counts what is greater than all of them."""
    total: float = 0.0
    """The sum of all values."""

    @classmethod
    def over(cls, *bounds: float) -> Self:
        """Return an empty distribution."""
        return cls(bounds, [0] * (len(bounds) + 1))

    def note(self, value: float) -> None:
        """Count ``value``."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Statistics = Mapping[str, float | Distribution]
"""Numbers by their name: lower case and underscores, with its unit. A number that only ever grows has a
name that ends in ``_total``; any other says how it is now."""

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MAX_NAME_CHARS = 80
_MAX_NUMBERS = 64


def sound_statistics(told: object) -> dict[str, float | Distribution]:
    """Return what of ``told`` can be shown: a signer of another package may tell anything."""
    if not isinstance(told, Mapping):
        return {}
    sound = {name: number for name, number in told.items() if _is_name(name) and _is_number(number)}
    return dict(islice(sound.items(), _MAX_NUMBERS))


def _is_name(name: object) -> bool:
    return isinstance(name, str) and len(name) <= _MAX_NAME_CHARS and _NAME.fullmatch(name) is not None


def _is_number(number: object) -> bool:
    match number:
        case Distribution(bounds=bounds, counts=counts, total=total):
            numbers = [*bounds, *counts, total]
            return (
                len(counts) == len(bounds) + 1
                and all(map(_is_number, numbers))
                and [*bounds] == sorted(bounds)
            )
        case int() | float():
            return math.isfinite(number)
    return False
