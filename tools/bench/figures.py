"""Many runs as one figure: the median, and how far the runs were apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Generic, Self, TypeVar

from msgspec import Struct, structs

Measured = TypeVar("Measured", bound=Struct)


class Spread(Struct, frozen=True):
    """A figure of several runs."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        values = list(values)
        return cls(median(values), min(values), max(values))


class Run(Struct, Generic[Measured], frozen=True):
    """What one run measured, and the failed requests that would make it worthless."""

    figures: Measured
    failed: int


Spreads = Mapping[str, Spread]
"""By the name of the figure."""


def spreads(runs: Sequence[Run[Any]]) -> Spreads:
    """Put the runs together, field by field. A field that is None was not measured, and is left out."""
    fields = [structs.asdict(run.figures) for run in runs]
    measured = [name for name, value in fields[0].items() if value is not None]
    return {name: Spread.of(run[name] for run in fields) for name in measured}


def failures(runs: Iterable[Run[Any]]) -> int:
    """Return how many requests failed in all of them."""
    return sum(run.failed for run in runs)
