"""What the service promises to stay within, and whether it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from msgspec import Struct

from benchmarks.run import Figures
from macp_auth.domain.keys import Algorithm

# ES256's promise is 160 us a token where a bare signature takes 30 us.
MOST_CPU_TO_BARE = {Algorithm.RS256: 1.4, Algorithm.ES256: 160 / 30}
MOST_FIRST_TOKEN_MS = 1500
MOST_RESIDENT_MIB = 80


class Verdict(Struct, frozen=True):
    """One target of one algorithm."""

    target: str
    found: float
    most: float
    met: bool


def judge(medians: Mapping[Algorithm, Figures], *, workers: int) -> list[Verdict]:
    """Hold the medians against the targets. Memory has a target for one worker only."""
    judged = (_judge(algorithm, figures, workers) for algorithm, figures in medians.items())
    return list(chain.from_iterable(judged))


def _judge(algorithm: Algorithm, figures: Figures, workers: int) -> Iterator[Verdict]:
    yield _verdict(
        f"{algorithm}: CPU per token : bare signature", figures.cpu_to_bare, MOST_CPU_TO_BARE[algorithm]
    )
    yield _verdict(f"{algorithm}: first token, ms", figures.first_token_ms, MOST_FIRST_TOKEN_MS)
    if workers == 1:
        yield _verdict(f"{algorithm}: resident memory, MiB", figures.resident_mib, MOST_RESIDENT_MIB)


def _verdict(target: str, found: float, most: float) -> Verdict:
    return Verdict(target, found, most, met=found <= most)
