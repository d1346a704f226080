"""The writer's bounds: what does not fit in memory is counted, logged, and recorded as a gap or as a sum."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from macp_auth.adapters.audit import writer as writing
from macp_auth.adapters.audit.destination import Destination
from macp_auth.adapters.audit.line import audit_line
from macp_auth.adapters.audit.log import AuditLog
from macp_auth.adapters.audit.standard_output import StandardOutput
from macp_auth.adapters.audit.waiting import LINE_OVERHEAD, LineQueue, Tally
from macp_auth.adapters.audit.writer import LineWriter
from tests.audit.chains import unlinked
from tests.audit.pipes import read_lines
from tests.audit.test_line import attempt, minted
from tools.support.bounded import HANG_SECONDS
from tools.support.service import wait_until

LINE = b'{"number":"%08d","pad":"' + b"x" * 400 + b'"}\n'
MINTED = b'{"event":"minted"}\n'
BOUND = 300  # lines; a pipe takes some 150 of these


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[int]:
    """The reading end of ``tmp_path / "pipe"``."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    yield reader
    os.close(reader)


def line_writer(path: Path, on_dropped: Callable[[int], object] = lambda _: None) -> LineWriter:
    return LineWriter(Destination(str(path), StandardOutput(1)), on_dropped)


def bound_to(monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    monkeypatch.setattr(writing, "MINTED_BYTES", lines * (len(LINE % 0) + LINE_OVERHEAD))
    monkeypatch.setattr(writing, "REFUSED_BYTES", lines * (len(LINE % 0) + LINE_OVERHEAD))


def test_lines_beyond_the_bound_are_dropped_counted_and_recorded(
    pipe: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest are kept; after them comes a line that says how many are missing, then newer ones."""
    bound_to(monkeypatch, BOUND)
    dropped: list[int] = []
    writer = line_writer(tmp_path / "pipe", dropped.append)
    with capture_logs() as logs:
        writer.start()
        began = time.monotonic()
        for number in range(1000):
            writer.put_minted(LINE % number)
        assert time.monotonic() - began < HANG_SECONDS  # nothing was waited for
        assert writer.dropping
        wait_until(lambda: len(logs) == 2, within=HANG_SECONDS, what="both troubles are logged")
        kept = 1000 - sum(dropped)
        assert BOUND <= kept < 600
        linked = read_lines(pipe, kept + 1)
        wait_until(lambda: len(logs) == 3, within=HANG_SECONDS, what="the end of it is logged")
        assert not writer.dropping
        writer.put_minted(LINE % 1000)
        linked += read_lines(pipe, 1)
        writer.close()
    *received, after = unlinked(linked)
    assert after == LINE % 1000
    assert received[:-1] == [LINE % number for number in range(kept)]
    gap = json.loads(received[-1])
    assert (gap["event"], gap["lines"]) == ("dropped", sum(dropped))
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("cannot write audit log; keeping lines in memory", "error"),
        ("audit lines dropped", "error"),
        ("audit log written again", "info"),
        ("audit chain", "info"),
    ]


def test_refusals_take_no_room_from_tokens_and_are_written_after_them(
    pipe: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those beyond their bound are summed up, and no line is called dropped."""
    bound_to(monkeypatch, BOUND)
    monkeypatch.setattr(writing, "SUMMARY_SECONDS", 0.1)
    dropped: list[int] = []
    writer = line_writer(tmp_path / "pipe", dropped.append)
    writer.start()
    for number in range(1000):
        writer.put_refused(LINE % number, "invalid-json")
    for _ in range(BOUND):
        writer.put_minted(MINTED)
    assert not dropped
    linked: list[bytes] = []

    def complete() -> bool:
        with suppress(AssertionError):
            linked.extend(read_lines(pipe, 1))
        return b"refused-summary" in linked[-1]

    wait_until(complete, within=HANG_SECONDS, what="the sum is written")
    writer.close()
    received = unlinked(linked)
    summed = json.loads(received[-1])["reasons"]["invalid-json"]
    assert 1000 - summed == len(received) - BOUND - 1
    first, last = received.index(MINTED), len(received) - received[::-1].index(MINTED)
    assert received[first:last] == [MINTED] * BOUND
    assert first < 200  # what was in the pipe already


def test_what_waits_is_bounded_in_bytes() -> None:
    """Taken out and put back, the sums are right; what is put back is first, and is never refused."""
    queue = LineQueue(10 * (100 + LINE_OVERHEAD))
    assert [queue.put(b"x" * 100) for _ in range(11)] == [True] * 10 + [False]
    taken = queue.take(4)
    assert queue.put(b"y" * (4 * (100 + LINE_OVERHEAD) - LINE_OVERHEAD))
    queue.put_back([b"first", *taken])
    assert not queue.put(b"")
    assert queue.take(2) == [b"first", b"x" * 100]
    assert len(queue) == 10


def test_the_end_does_not_wait_long_for_what_can_t_be_written(pipe: int, tmp_path: Path) -> None:  # noqa: ARG001 - it is not read
    """A stopping service stops although nothing reads its lines; they are counted."""
    dropped: list[int] = []
    writer = line_writer(tmp_path / "pipe", dropped.append)
    with capture_logs() as logs:
        writer.start()
        for number in range(250):
            writer.put_minted(LINE % number)
        writer.sum_up("invalid-json")
        began = time.monotonic()
        writer.close()
        assert time.monotonic() - began < HANG_SECONDS
        wait_until(
            lambda: any(log["event"] == writing.DROPPED for log in logs),
            within=HANG_SECONDS,
            what="it is logged",
        )
    [log] = [log for log in logs if log["event"] == writing.DROPPED]
    assert 50 < log["lines"] < 150
    assert sum(dropped) == log["lines"]
    assert log["refused"] == 1


def test_a_tally_reports_each_count_once() -> None:
    """While another thread counts; and since when."""
    tally = Tally()
    stop = threading.Event()
    reports = []

    def report() -> None:
        while not stop.is_set():
            reports.append(tally.report(0))

    thread = threading.Thread(target=report)
    thread.start()
    for number in range(50_000):
        tally.count(f"reason-{number % 7}", 5)
    stop.set()
    thread.join()
    reports.append(tally.report(0))
    assert sum(sum(report.counts.values()) for report in reports) == 50_000
    assert tally.unreported == 0
    assert {report.since for report in reports} <= {0, 5}


def test_a_service_that_ends_has_written_all(tmp_path: Path) -> None:
    """Also what was minted in its last moment."""
    path = tmp_path / "audit.log"

    async def serve() -> None:
        log = AuditLog(Destination(str(path), StandardOutput(1)), lambda _: None)
        async with log.running():
            for _ in range(100):
                log.record(attempt(minted()))

    asyncio.run(serve())
    with path.open("rb") as written:
        assert unlinked(written) == [audit_line(attempt(minted()))] * 100


def test_a_line_is_written_soon_also_when_it_is_alone(pipe: int, tmp_path: Path) -> None:
    """It is visible in the log."""
    writer = line_writer(tmp_path / "pipe")
    writer.start()
    received: list[bytes] = []
    for number in range(5):
        began = time.monotonic()
        writer.put_minted(LINE % number)
        received += read_lines(pipe, 1)
        assert unlinked(received)[-1] == LINE % number
        assert time.monotonic() - began < HANG_SECONDS
        time.sleep(0.05)
    writer.close()
