"""Converts the readings of the workers to the state of the service, for the status page."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from macp_auth.adapters.metrics.cells import Name
from macp_auth.adapters.metrics.meter import GRANTS, MINTS
from macp_auth.adapters.metrics.workers import Reading, Subject, Workers, not_ready
from macp_auth.domain.rotation import Timing
from macp_auth.domain.service_state import Requests, ServiceState, Worker

RECENT_SECONDS = 300.0
"""How far back a rate reaches, if there was a reading then; else to the one before."""
_APART_SECONDS = 10.0
"""Nearer readings are not kept: they would take memory, and the rate of a few seconds says little."""

Tokens = dict[str | None, dict[str, int]]
"""Numbers of requests by result, by caller; None for all callers."""


class ServiceStates:
    """Reads the state of the service, and remembers earlier numbers of tokens.

    Args:
        subject: the facts that the first process knows itself.
        timing: the publish lead and retire lag.
        workers: where to read.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        subject: Subject,
        timing: Timing,
        workers: Workers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._subject = subject
        self._timing = timing
        self._workers = workers
        self._clock = clock
        self._started = clock()
        self._earlier: deque[tuple[float, Mapping[str | None, int]]] = deque()

    def read(self) -> Reading:
        """Return a reading of the workers, and note its numbers."""
        reading = self._workers.read()
        self._note({caller: found.get("minted", 0) for caller, found in _requests(reading).items()})
        return reading

    def state(self) -> ServiceState:
        """Return the state of the service now."""
        reading, now = self.read(), self._clock()
        since, before = self._earlier[0]
        recent = now - since if now - since >= _APART_SECONDS else None
        return ServiceState(
            at=time.time(),
            started_at=self._subject.started_at,
            up_seconds=now - self._started,
            signer=self._subject.signer,
            timing=self._timing,
            restarts=self._subject.restarts(),
            workers=[
                None if state is None else Worker(state, not_ready(state, now))
                for state in map(reading.states.get, range(self._subject.workers))
            ],
            requests=[
                Requests(
                    caller=caller,
                    minted=found.get("minted", 0),
                    refused=found.get("refused", 0),
                    failed=found.get("failed", 0),
                    recently_minted=None
                    if recent is None
                    else found.get("minted", 0) - before.get(caller, 0),
                )
                for caller, found in _requests(reading).items()
            ],
            recent_seconds=recent,
        )

    def _note(self, minted: Mapping[str | None, int]) -> None:
        now = self._clock()
        while len(self._earlier) > 1 and now - self._earlier[1][0] >= RECENT_SECONDS:
            self._earlier.popleft()
        if not self._earlier or now - self._earlier[-1][0] >= _APART_SECONDS:
            self._earlier.append((now, minted))


def _requests(reading: Reading) -> Tokens:
    """Return the numbers of requests: first of all callers, then of each by name."""
    found: Tokens = {None: {}}
    for name, number in sorted(reading.counts.cells.items()):
        if (key := _caller_and_result(name)) is not None:
            caller, result = key
            results = found.setdefault(caller, {})
            results[result] = results.get(result, 0) + int(number)
    return found


def _caller_and_result(name: Name) -> tuple[str | None, str] | None:
    match name:
        case (kind, result, _) if kind == MINTS:
            return None, result
        case (kind, caller, _, result) if kind == GRANTS:
            return caller, result
    return None
