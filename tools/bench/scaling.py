"""What more workers gain, when the load shares their cores.

Tokens per second alone would say too little: with as many workers as cores, what the load takes is
missing to them. So each rate is divided by the cores that the workers could have: one each, and
together no more than the machine's less what wrk used itself. The gain is the ratio of the two
quotients, times the cores that so many workers would have on a machine without wrk. A worker that
idles, or that spends more on a token because of the other one, lowers it; so does any other process
on the machine.
"""

from __future__ import annotations

import os

from msgspec import Struct

from macp_auth.domain.keys import Algorithm
from tools.bench.figures import Run
from tools.bench.load import Load
from tools.bench.meter import meter_minting
from tools.bench.subjects import ephemeral

CONNECTIONS = 64  # so many that each worker always has some, however the system deals them out


class Scaling(Struct, frozen=True, kw_only=True):
    """One comparison."""

    one_per_second: float
    many_per_second: float
    load_cores: float
    """What wrk used itself, beside the many."""
    gain: float


def compare(algorithm: Algorithm, workers: int, seconds: int) -> Run[Scaling]:
    """Measure one worker, then ``workers``."""
    cores = len(os.sched_getaffinity(0))
    one, many = (_mint(algorithm, count, seconds) for count in (1, workers))
    figures = Scaling(
        one_per_second=one.per_second,
        many_per_second=many.per_second,
        load_cores=many.cores,
        gain=gain(one, many, workers=workers, cores=cores),
    )
    return Run(figures, one.failed + many.failed)


def gain(one: Load, many: Load, *, workers: int, cores: int) -> float:
    """How many times the tokens of one worker the many would make without wrk beside them."""
    one_could_have = min(1, cores - one.cores)
    many_could_have = min(workers, cores - many.cores)
    ratio = (many.per_second / many_could_have) / (one.per_second / one_could_have)
    return ratio * min(workers, cores)


def _mint(algorithm: Algorithm, workers: int, seconds: int) -> Load:
    with ephemeral(algorithm, workers) as service:
        service.wait_for_first_token()
        return meter_minting(service, seconds=seconds, connections=CONNECTIONS).load
