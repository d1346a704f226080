"""Logs that can't be written, and lines that are too many, too long, or not for a terminal."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from macp_auth.adapters import standard_error
from macp_auth.entrypoints import logs
from tools.support.service import clean_environment, wait_until

FULL = Path("/dev/full")  # takes no byte: a disk without room
LOG = """
from macp_auth.entrypoints.logs import configure_logs
import structlog
configure_logs()
for number in range(3):
    structlog.get_logger().error("a line", number=number)
print("went on")
"""


@pytest.mark.process
@pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full; run this test there")
def test_a_line_that_can_t_be_written_is_lost_and_no_more() -> None:
    """The caller continues: nobody would notice a background task that ended there."""
    with FULL.open("w") as full:
        run = subprocess.run(
            [sys.executable, "-u", "-c", LOG],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            timeout=30,
            check=False,
        )
    assert run.stdout == "went on\n"


HIDDEN = "\x7f\x9b\u202e\u2028\U000e0001"


@pytest.fixture
def configured() -> None:
    """Logs as the service has them."""
    logs.configure_logs()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.usefixtures("configured")
def test_an_event_has_so_many_lines_and_the_next_says_how_many_are_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event by itself; what libraries log is counted by its template."""
    now = 0.0
    monkeypatch.setattr("macp_auth.entrypoints.logs.time.monotonic", lambda: now)
    log = structlog.get_logger()
    for number in range(logs.LINES + 7):
        log.error("often", number=number)
        logging.getLogger("library").error("often %s", number)
    log.error("once")
    assert [line["event"] for line in lines(capsys)].count("often") == logs.LINES
    now += logs.LINES_SECONDS
    log.error("often")
    log.error("often")
    first, second = lines(capsys)
    assert first["suppressed"] == 7
    assert "suppressed" not in second


@pytest.mark.usefixtures("configured")
def test_names_that_never_end_are_counted_together(capsys: pytest.CaptureFixture[str]) -> None:
    """A library that puts a value into each of its texts has one limit for all of them at last."""
    for number in range(1000):
        logging.getLogger("library").error(f"value {number}")  # noqa: G004 - as it should not
    assert len(lines(capsys)) < 256 + logs.LINES + 1


@pytest.mark.usefixtures("configured")
def test_a_line_is_bounded_and_its_cause_stays(capsys: pytest.CaptureFixture[str]) -> None:
    """Long texts lose their middle, also a traceback's; with too many of them, only the event is left."""
    log = structlog.get_logger()
    log.error("long", detail="a" * 100_000 + "end")
    log.error("many", **{f"field{number}": "a" * 8000 for number in range(20)})
    try:
        raise ValueError("a" * 100_000 + "cause")
    except ValueError:
        log.exception("raised")
    long, many, raised = lines(capsys)
    assert len(long["detail"]) < 9000
    assert long["detail"].endswith("end")
    assert many.keys() == {"event", "level", "timestamp", "truncated"}
    assert raised["exception"].startswith("Traceback")
    assert raised["exception"].endswith("cause")


@pytest.mark.usefixtures("configured")
def test_no_character_of_a_line_moves_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """They are escaped, and JSON reads them as they were; half of one is no reason to lose the line."""
    structlog.get_logger().error("shown", detail=HIDDEN)
    structlog.get_logger().error("half", detail="\ud800")
    text = capsys.readouterr().err
    assert not set(HIDDEN) & set(text)
    shown, half = map(json.loads, text.splitlines())
    assert shown["detail"] == HIDDEN
    assert "d800" in half["detail"]


ON_A_TERMINAL = """
import sys, structlog
from macp_auth.entrypoints.logs import configure_logs
configure_logs()
try:
    raise ValueError("\\x9b1A\\u202e")
except ValueError:
    structlog.get_logger().exception("shown", detail="\\x9b1A\\u2028\\nforged")
"""


@pytest.mark.process
def test_on_a_terminal_neither() -> None:
    """Colours are the renderer's; what comes from elsewhere is escaped, and stays in its line."""
    ours, its = pty.openpty()
    subprocess.run([sys.executable, "-c", ON_A_TERMINAL], stderr=its, timeout=30, check=True)
    os.close(its)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    assert not set("\x9b\u202e\u2028") & set(text)
    assert "\\u009b1A\\u2028\\u000aforged" in text
    assert "ValueError: \\u009b1A\\u202e" in text


def test_a_pipe_that_nobody_reads_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits waits in memory, the rest is counted; all that waits comes when it is read."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        output = standard_error.StandardError()
        text = "x" * 4095 + "\n"
        began = time.monotonic()
        for _ in range(1000):
            output.write(text)
        assert time.monotonic() - began < 1000 * standard_error.PATIENCE_SECONDS / 5
        kept = 1000 - output.dropped
        assert standard_error.MAX_WAITING <= kept < 1000
        received = 0

        def all_of_it() -> bool:
            nonlocal received
            received += len(os.read(reader, 65536))
            return received == kept * len(text)

        wait_until(all_of_it, within=30, what="all is read")
        monkeypatch.undo()
    os.close(reader)
