"""A signer's own statistics, independent of a metrics library."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Self

from msgspec import Struct


class Distribution(Struct):
    """A histogram. Adding a value costs a fraction of a microsecond."""

    bounds: Sequence[float]
    """Upper bounds, inclusive, in ascending order."""
    counts: list[int]
    """Values in each bucket; one more than there are bounds, for values above the last."""
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
"""Numbers by name: lower case and underscores, with the unit. The name of a counter ends in ``_total``;
any other number is a gauge."""

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MAX_NAME_CHARS = 80
_MAX_NUMBERS = 64


def sound_statistics(reported: object) -> dict[str, float | Distribution]:
    """Return the valid entries of ``reported``: a plugin may return anything."""
    if not isinstance(reported, Mapping):
        return {}
    sound = {name: number for name, number in reported.items() if _is_name(name) and _is_number(number)}
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
