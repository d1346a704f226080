"""What the service promises to stay within, and whether it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from macp_auth.domain.keys import Algorithm
from tools.bench.figures import Spreads

# ES256's promise is 100 us a token where a bare signature takes 30 us.
MOST_CPU_TO_BARE = {Algorithm.RS256: 1.25, Algorithm.ES256: 100 / 30}
MOST_JWKS_CPU_US = 50
MOST_FIRST_TOKEN_MS = 1000
MOST_RESIDENT_MIB = 70
LEAST_GAIN = {2: 1.8}
"""Of so many workers, on at least as many cores, beside one."""


class Verdict(Struct, frozen=True):
    """One target."""

    target: str
    found: float
    limit: str
    met: bool

    def __str__(self) -> str:
        mark = "met   " if self.met else "MISSED"
        return f"{mark}  {self.target}: {self.found:,.2f}, {self.limit}"


def judge_service(algorithm: Algorithm, signer: str, figures: Spreads) -> Iterator[Verdict]:
    """Hold the medians of one worker against the targets."""
    most = {
        ("cpu_to_bare", "CPU per token : bare signature"): MOST_CPU_TO_BARE[algorithm],
        ("jwks_cpu_us", "CPU per JWKS request, us"): MOST_JWKS_CPU_US,
        ("first_token_ms", "first token, ms"): MOST_FIRST_TOKEN_MS,
        ("resident_mib", "resident memory, MiB"): MOST_RESIDENT_MIB,
    }
    for (figure, label), limit in most.items():
        found = figures[figure].median
        yield Verdict(f"{algorithm}, {signer}: {label}", found, f"at most {limit:,.2f}", met=found <= limit)


def judge_scaling(scaling: Mapping[Algorithm, Spreads], *, workers: int, cores: int) -> Iterator[Verdict]:
    """Hold the gain of more workers against its target, where there is one and the cores are there."""
    least = LEAST_GAIN.get(workers)
    if least is None or cores < workers:
        return
    for algorithm, figures in scaling.items():
        found = figures["gain"].median
        yield Verdict(
            f"{algorithm}: gain of {workers} workers", found, f"at least {least:,.2f}", met=found >= least
        )
