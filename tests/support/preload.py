"""A library of a test's own that is loaded before the C library, and replaces some of its functions."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.support.programs import require_tool


def preload(directory: Path, source: str) -> dict[str, str]:
    """Compile ``source``; return the environment in which it is loaded."""
    library = directory / "preloaded.so"
    command = [require_tool("cc", "gcc"), "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=source, text=True, check=True, timeout=60)
    return {"LD_PRELOAD": str(library)}
