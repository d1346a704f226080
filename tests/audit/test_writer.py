"""The writer's bound: what does not fit in memory is counted, told, and recorded as a gap."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from litestar import Litestar
from structlog.testing import capture_logs

from macp_auth.entrypoints.audit import writer as writing
from macp_auth.entrypoints.audit.destination import Destination
from macp_auth.entrypoints.audit.line import audit_line
from macp_auth.entrypoints.audit.log import AuditLog
from macp_auth.entrypoints.audit.writer import LineWriter
from tests.audit.pipes import read_lines
from tests.audit.test_line import attempt, minted
from tests.support.service import wait_until

LINE = b'{"number":"%08d"}' + b" " * 400 + b"\n"
BOUND = 300  # lines; a pipe takes some 150 of these


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[int]:
    """The reading end of ``tmp_path / "pipe"``."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    yield reader
    os.close(reader)


def line_writer(path: Path, on_lost: Callable[[int], object]) -> LineWriter:
    return LineWriter(Destination(str(path)), lambda lines: b"%d lost\n" % lines, on_lost)


def test_lines_beyond_the_bound_are_lost_counted_and_recorded(
    pipe: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest are kept; after them comes a line that says how many are missing, then newer ones."""
    monkeypatch.setattr(writing, "MAX_WAITING", BOUND)
    lost: list[int] = []
    writer = line_writer(tmp_path / "pipe", lost.append)
    with capture_logs() as logs:
        writer.start()
        began = time.monotonic()
        for number in range(1000):
            writer.put(LINE % number)
        assert time.monotonic() - began < 1  # nothing was waited for
        wait_until(lambda: len(logs) == 2, within=5, what="both troubles are told")
        kept = 1000 - sum(lost)
        assert BOUND <= kept < 600
        received = read_lines(pipe, kept + 1)
        wait_until(lambda: len(logs) == 3, within=5, what="the end of it is told")
        writer.put(b"after\n")
        assert read_lines(pipe, 1) == [b"after\n"]
        writer.close()
    assert received[:-1] == [LINE % number for number in range(kept)]
    assert received[-1] == b"%d lost\n" % sum(lost)
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("AUDIT LOG CAN'T BE WRITTEN; lines wait in memory", "error"),
        ("AUDIT LINES ARE LOST", "error"),
        ("audit log can be written again", "info"),
    ]


def test_the_end_does_not_wait_long_for_what_can_t_be_written(pipe: int, tmp_path: Path) -> None:  # noqa: ARG001 - it is not read
    """A service that is told to stop stops, whoever does not read its lines; they are counted."""
    lost: list[int] = []
    writer = line_writer(tmp_path / "pipe", lost.append)
    with capture_logs() as logs:
        writer.start()
        for number in range(250):
            writer.put(LINE % number)
        began = time.monotonic()
        writer.close()
        assert time.monotonic() - began < 1.5
        wait_until(lambda: logs, within=2, what="it is told")
    assert logs[-1]["event"] == "AUDIT LINES ARE LOST"
    assert 50 < logs[-1]["lines"] < 150
    assert sum(lost) == logs[-1]["lines"]


def test_a_service_that_ends_has_written_all(tmp_path: Path) -> None:
    """Also what was minted in its last moment."""
    path = tmp_path / "audit.log"

    async def serve() -> None:
        log = AuditLog(str(path), print)
        async with log.lifespan(Litestar()):
            for _ in range(100):
                log.record(attempt(minted()))

    asyncio.run(serve())
    assert path.read_bytes() == audit_line(attempt(minted())) * 100


def test_a_line_is_written_soon_also_when_it_is_alone(pipe: int, tmp_path: Path) -> None:
    """Whoever follows the log sees it."""
    writer = line_writer(tmp_path / "pipe", print)
    writer.start()
    for number in range(5):
        began = time.monotonic()
        writer.put(LINE % number)
        assert read_lines(pipe, 1) == [LINE % number]
        assert time.monotonic() - began < 3
        time.sleep(0.05)
    writer.close()
