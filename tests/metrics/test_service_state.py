"""What the workers' files become, for the status page."""

from __future__ import annotations

from pathlib import Path

import pytest

from macp_auth.adapters.metrics.cells import Cells
from macp_auth.adapters.metrics.service_state import ServiceStates
from macp_auth.adapters.metrics.workers import Subject, Workers, files_of, write_state
from macp_auth.domain.rotation import Timing
from macp_auth.domain.worker_state import WorkerState

GONE = 2**22 + 1  # no process has such an id: it is more than Linux's highest
PIDS = [GONE, GONE + 1]
SUBJECT = Subject(signer="demo", workers=2, refresh_seconds=30, started_at=1.0, restarts=lambda: 3)
READY = WorkerState(at=1000, not_ready=None, clock_offset=0, keys=[], keys_read_at=None, signer={})


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def states(tmp_path: Path, clock: Clock) -> ServiceStates:
    return ServiceStates(SUBJECT, Timing(4500, 3720), Workers(tmp_path, lambda: PIDS), clock)


def count(directory: Path, pid: int, *name: str, number: float = 1) -> None:
    cells = Cells(files_of(directory, pid)[0])
    cells.numbers[cells.cell(*name)] += number


def test_requests_are_summed_over_workers_and_grants(tmp_path: Path, states: ServiceStates) -> None:
    """First all of them, then those of each caller."""
    for pid in PIDS:
        count(tmp_path, pid, "mints", "minted", "", number=5)
        count(tmp_path, pid, "mints", "refused", "invalid-ttl")
        count(tmp_path, pid, "mints", "refused", "no-grant")
        count(tmp_path, pid, "grants", "b", "b/1", "minted", number=2)
        count(tmp_path, pid, "grants", "b", "b/2", "minted")
        count(tmp_path, pid, "grants", "a", "", "refused")
    found = states.state()
    assert [(each.caller, each.minted, each.refused, each.failed) for each in found.requests] == [
        (None, 10, 4, 0),
        ("a", 0, 2, 0),
        ("b", 6, 0, 0),
    ]
    assert (found.signer, found.restarts, found.recent_seconds) == ("demo", 3, None)


def test_a_rate_is_of_the_time_since_an_earlier_reading(
    tmp_path: Path, states: ServiceStates, clock: Clock
) -> None:
    """A scrape counts as one; the oldest of the last five minutes is taken, and no nearer one than 10 s."""
    count(tmp_path, GONE, "mints", "minted", "", number=100)
    states.read()
    clock.now += 9
    assert states.state().recent_seconds is None
    count(tmp_path, GONE, "mints", "minted", "", number=7)
    clock.now += 3
    soon = states.state()
    assert (soon.recent_seconds, soon.requests[0].recently_minted) == (12, 7)
    for _ in range(60):
        clock.now += 10
        states.read()
    later = states.state()
    assert later.up_seconds == 612
    assert (later.recent_seconds, later.requests[0].recently_minted) == (300, 0)


def test_each_worker_has_its_place(tmp_path: Path, states: ServiceStates, clock: Clock) -> None:
    """One that has not reported has none, and one that stops to is silent."""
    count(tmp_path, GONE, "mints", "minted", "")
    write_state(files_of(tmp_path, GONE)[1], READY)
    assert states.state().not_ready == {1: "starting"}
    clock.now += 11
    assert states.state().not_ready == {0: "silent", 1: "starting"}
