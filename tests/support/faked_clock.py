"""A wall clock of a process's own, by libfaketime. The monotonic clock stays as it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.support.programs import require_tool


class FakedClock:
    """A clock that is stepped by writing a file in ``directory``."""

    def __init__(self, directory: Path) -> None:
        faketime = require_tool("faketime", "faketime")
        library = subprocess.run(
            [faketime, "-m", "-f", "+0", "printenv", "LD_PRELOAD"], capture_output=True, check=True, text=True
        ).stdout.strip()
        self._file = directory / "step"
        self.step_to(0)
        self.env = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        """Variables of the process."""

    def step_to(self, seconds: int) -> None:
        """Let the clock be ahead of the machine's by so much."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}")
        fresh.replace(self._file)
