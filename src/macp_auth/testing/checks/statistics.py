"""Statistics: the numbers that a signer gives to the metrics."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping

from macp_auth.domain.statistics import sound_statistics
from macp_auth.testing.bench import new_input, signing_versions
from macp_auth.testing.checks.signatures import signs_in_time
from macp_auth.testing.registry import Nonconformity, check
from macp_auth.testing.watched import WatchedSubject

_STALL_SECONDS = 0.05
"""Signatures wait meanwhile, once a second."""
_TRIALS = 3


@check(
    "statistics() returns numbers by name, and at once",
    source="the Signer port: called once a second, on the event loop",
    needs=(signs_in_time,),
)
async def statistics_are_numbers(subject: WatchedSubject) -> None:
    """Ask a used signer; the fastest of several trials excludes noise."""
    async with subject.opened() as signer:
        await signer.sign((await signing_versions(signer))[0].kid, new_input())
        trials = []
        for _ in range(_TRIALS):
            began = time.monotonic()
            reported: object = signer.statistics()
            trials.append(time.monotonic() - began)
            if inspect.iscoroutine(reported):
                reported.close()
            if not isinstance(reported, Mapping):
                raise Nonconformity(f"statistics() returned a {type(reported).__name__}: return a dict")
            for name in reported.keys() - sound_statistics(reported):
                raise Nonconformity(
                    f"statistics() has {name!r}: {reported[name]!r}: a name has lower-case words and "
                    "underscores, and its value is a finite number or a Distribution"
                )
        if min(trials) > _STALL_SECONDS:
            raise Nonconformity(
                f"statistics() blocks for {min(trials) * 1000:.0f} ms: return numbers that are already known"
            )
