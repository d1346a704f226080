"""The example of a signer in Go, built."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.docs.pages import ROOT
from tools.support.programs import ProgramMissing

SOURCE = ROOT / "plugins" / "go-example"
BUILD_SECONDS = 240
"""To compile the standard library, once."""


def build(directory: Path) -> Path:
    """Build it in ``directory``, and return its path.

    Raises:
        ProgramMissing: there is no Go of its version. Debian has none, so this is no failure in CI.
    """
    (version,) = re.findall(r"^go (.+)$", (SOURCE / "go.mod").read_text(), re.MULTILINE)
    install = f"install Go {version} or newer (https://go.dev/dl)"
    program = directory / "macp-auth-go-example"
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOPROXY": "off", "CGO_ENABLED": "0"}
    try:
        done = subprocess.run(
            ["go", "build", "-trimpath", "-o", program, "."],
            cwd=SOURCE,
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise ProgramMissing(f"go is missing; {install}") from None
    if "requires go >=" in done.stderr:
        raise ProgramMissing(f"this Go is too old; {install}")
    assert done.returncode == 0, done.stderr
    return program
