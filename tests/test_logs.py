"""Logs that can't be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import clean_environment

FULL = Path("/dev/full")  # takes no byte: a disk without room
LOG = """
from macp_auth.entrypoints.logs import configure_logs
import structlog
configure_logs()
for number in range(3):
    structlog.get_logger().error("a line", number=number)
print("went on")
"""


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full; run this test there")
def test_a_line_that_can_t_be_written_is_lost_and_no_more() -> None:
    """Whoever logs goes on: a background task that ended there would never be missed."""
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
