"""What the workers' files become, for a scrape."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from macp_auth.adapters.metrics.cells import CELLS, Cells, read_cells
from macp_auth.adapters.metrics.exposition import ServiceCollector
from macp_auth.adapters.metrics.meter import MAX_REASONS, Meter
from macp_auth.adapters.metrics.workers import Subject, Workers, files_of, write_state
from macp_auth.domain.errors import InvalidTTL, SignerUnavailable
from macp_auth.domain.minting import MintEvent
from macp_auth.domain.statistics import Distribution
from macp_auth.domain.worker_state import PublishedKey, WorkerState
from macp_auth.entrypoints.http.errors import reason_word, status_of

NOW = 1_000_000.0
GONE = 2**22 + 1  # no process has such an id: it is more than Linux's highest
OTHER = GONE + 1
READY = WorkerState(at=NOW, not_ready=None, clock_offset=-1.5, keys=[], keys_read_at=None, signer={})
Samples = dict[str, dict[tuple[str, ...], float]]


def write(directory: Path, pid: int, state: WorkerState | None = None, **counts: float) -> None:
    """Write what the worker ``pid`` would."""
    cells_path, state_path = files_of(directory, pid)
    cells = Cells(cells_path)
    for reason, count in counts.items():
        cells.numbers[cells.cell("mints", "failed", reason)] += count
    if state is not None:
        write_state(state_path, state)


def collected(workers: Workers, now: float = NOW) -> Samples:
    """Every sample, by its name and the values of its labels in the order of their names."""
    subject = Subject(signer="demo", workers=2, refresh_seconds=30, started_at=1.0, restarts=lambda: 0)
    registry = CollectorRegistry()
    registry.register(ServiceCollector(subject, workers.read, clock=lambda: now))
    found: Samples = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def worker_state(**signer: float | Distribution) -> WorkerState:
    return msgspec.structs.replace(READY, signer=signer)


def test_dropped_audit_lines_are_counted(tmp_path: Path) -> None:
    """Of all workers together, and 0 while none is dropped."""
    for pid, lines in ((GONE, 3), (OTHER, 4), (OTHER + 1, 0)):
        Meter(files_of(tmp_path, pid)[0]).count_dropped_lines(lines)
    dropped = collected(Workers(tmp_path, lambda: [GONE, OTHER]))["macp_auth_audit_lines_dropped_total"]
    assert dropped == {(): 7}


def test_a_worker_that_writes_nothing_is_silent(tmp_path: Path) -> None:
    """What it wrote last does not stand for ever."""
    write(tmp_path, GONE, READY)
    workers = Workers(tmp_path, lambda: [GONE])
    in_time = collected(workers, NOW + 10)
    assert in_time["macp_auth_ready"] == {("0",): 1}
    assert in_time["macp_auth_clock_offset_seconds"] == {("0",): -1.5}
    late = collected(workers, NOW + 10.1)
    assert late["macp_auth_ready"] == {("0",): 0}
    assert late["macp_auth_not_ready"] == {("silent", "0"): 1}


def test_the_reason_has_the_label_of_its_worker(tmp_path: Path) -> None:
    """The other one is ready, and has no reason."""
    write(tmp_path, GONE, READY)
    write(tmp_path, OTHER, msgspec.structs.replace(READY, not_ready="sealed"))
    found = collected(Workers(tmp_path, lambda: [GONE, OTHER]))
    assert found["macp_auth_ready"] == {("0",): 1, ("1",): 0}
    assert found["macp_auth_not_ready"] == {("sealed", "1"): 1}


def test_counts_outlive_their_worker_and_gauges_do_not(tmp_path: Path) -> None:
    """The files of a worker that is gone are read once more, and removed."""
    pids = [GONE, OTHER]
    state = worker_state(logins_total=2, calls_in_flight=5, batch_size=Distribution((1, 2), [1, 2, 3], 20))
    write(tmp_path, GONE, state, timeout=3)
    write(tmp_path, OTHER, state, timeout=4)
    workers = Workers(tmp_path, lambda: pids)

    def check(in_flight: dict[tuple[str, ...], float]) -> None:
        found = collected(workers)
        assert found["macp_auth_mints_total"] == {("timeout", "failed"): 7}
        assert found["macp_auth_signer_logins_total"] == {("demo",): 4}
        buckets = {("1.0", "demo"): 2, ("2.0", "demo"): 6, ("+Inf", "demo"): 12}
        assert found["macp_auth_signer_batch_size_bucket"] == buckets
        assert found["macp_auth_signer_batch_size_sum"] == {("demo",): 40}
        assert found["macp_auth_signer_calls_in_flight"] == in_flight

    check({("demo", "0"): 5, ("demo", "1"): 5})
    pids.remove(GONE)
    for _ in range(3):
        check({("demo", "0"): 5})
    assert {path.stem for path in tmp_path.iterdir()} == {str(OTHER)}


def test_a_worker_that_is_being_started_is_not_taken_for_gone(tmp_path: Path) -> None:
    """It is in no place yet, and has a process; its file must stay."""
    write(tmp_path, os.getpid(), READY, timeout=1)
    workers = Workers(tmp_path, list)
    for _ in range(2):
        found = collected(workers)
        assert found["macp_auth_mints_total"] == {("timeout", "failed"): 1}
        assert "macp_auth_ready" not in found
    assert files_of(tmp_path, os.getpid())[0].exists()


@pytest.mark.parametrize(
    "others",
    [{"x_total": 1, "y_total": Distribution((1.0,), [0, 0])}, {"y_total": Distribution((9.0,), [1, 1], 10)}],
)
def test_a_plugin_that_tells_one_thing_here_and_another_there_breaks_no_scrape(
    tmp_path: Path, others: dict[str, Any]
) -> None:
    """The rest is still answered."""
    write(tmp_path, GONE, worker_state(x_total=Distribution((1.0,), [0, 0]), y_total=2), timeout=1)
    write(tmp_path, OTHER, worker_state(**others))
    assert collected(Workers(tmp_path, lambda: [GONE, OTHER]))["macp_auth_mints_total"]


def test_times_of_keys_are_exposed_if_known(tmp_path: Path) -> None:
    """In seconds since the epoch; a time that nothing tells is absent."""
    keys = [
        PublishedKey("a", "ES256", "active", 5.0, None),
        PublishedKey("b", "RS256", "deactivated", None, 7.0),
    ]
    write(tmp_path, GONE, msgspec.structs.replace(READY, keys=keys, keys_read_at=9.0))
    found = collected(Workers(tmp_path, lambda: [GONE]))
    assert found["macp_auth_key_state"] == {
        ("ES256", "a", "active", "0"): 1,
        ("RS256", "b", "deactivated", "0"): 1,
    }
    assert found["macp_auth_key_created_timestamp_seconds"] == {("a", "0"): 5}
    assert found["macp_auth_key_next_change_timestamp_seconds"] == {("b", "0"): 7}
    assert found["macp_auth_keys_read_timestamp_seconds"] == {("0",): 9}


def test_cells_of_a_process_with_the_same_id_are_counted_on_in(tmp_path: Path) -> None:
    """Ids come again, if rarely; no count is lost or taken for another."""
    path = tmp_path / "1.cells"
    for _ in range(2):
        cells = Cells(path)
        cells.numbers[cells.cell("a")] += 1
        cells.numbers[cells.cell("b", "c")] += 2.5
    assert read_cells(path) == {("a",): 2, ("b", "c"): 5}


MAKE_CELLS = """
import sys, pathlib
from macp_auth.adapters.metrics.cells import Cells
for number in range(int(sys.argv[2])):
    Cells(pathlib.Path(sys.argv[1], f"{number}.cells")).cell("a")
"""


def test_a_file_is_whole_as_soon_as_it_can_be_read(tmp_path: Path) -> None:
    """A worker starts while its neighbour is scraped."""
    files = 500
    with subprocess.Popen([sys.executable, "-c", MAKE_CELLS, tmp_path, str(files)]) as starting:
        for number in range(files):
            found: Mapping[tuple[str, ...], float] = {}
            while not found and starting.poll() in {None, 0}:
                with suppress(FileNotFoundError):
                    found = read_cells(tmp_path / f"{number}.cells")
            assert found == {("a",): 0}


def test_there_is_an_end_to_the_cells(tmp_path: Path) -> None:
    """A name that is too long, or one too many, is refused, and hurts no other."""
    cells = Cells(tmp_path / "1.cells")
    with pytest.raises(OverflowError):
        cells.cell("x" * 250)
    for number in range(CELLS):
        cells.numbers[cells.cell(str(number))] = number
    with pytest.raises(OverflowError):
        cells.cell("one too many")
    assert read_cells(tmp_path / "1.cells") == {(str(number),): number for number in range(CELLS)}


def failed(error: Exception) -> MintEvent:
    """A request that got no token."""
    return MintEvent(
        at=0,
        client=None,
        request_id="",
        request=None,
        minted=None,
        status=status_of(error),
        reason=reason_word(error),
    )


def failures(reasons: Sequence[str]) -> list[MintEvent]:
    """Requests that got no token for these reasons, as a plugin's signer may have them."""
    return [failed(SignerUnavailable("down", reason=reason)) for reason in reasons]


def test_a_plugin_s_reasons_are_bounded(tmp_path: Path) -> None:
    """Each is a time series: the many that a broken plugin may invent become one."""
    meter = Meter(tmp_path / "1.cells")
    letters = "abcdefghijklmnopqrstuvwxyz"
    reasons = [first + second for first in letters for second in letters]
    for each in failures(reasons):
        meter.count_mint(each)
    counted = {
        name[2]: count for name, count in read_cells(tmp_path / "1.cells").items() if name[1] == "failed"
    }
    assert len(counted) == MAX_REASONS + 1
    assert counted["aa"] == 1
    assert counted["other"] == len(reasons) - MAX_REASONS


def test_an_attempt_is_counted_by_whose_fault_it_is(tmp_path: Path) -> None:
    """A request that can't be granted is refused; one that could be, and was not, failed."""
    meter = Meter(tmp_path / "1.cells")
    for outcome in (InvalidTTL("no"), SignerUnavailable("down", reason="sealed"), ValueError()):
        meter.count_mint(failed(outcome))
    meter.count_mint(failed(SignerUnavailable("down", reason="Not A Word")))
    assert read_cells(tmp_path / "1.cells") == {
        ("mints", "minted", ""): 0,
        ("mints", "refused", "invalid-ttl"): 1,
        ("mints", "failed", "sealed"): 1,
        ("mints", "failed", "failed"): 1,
        ("mints", "failed", "internal-error"): 1,
    }
