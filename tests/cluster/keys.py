"""Keys for a test's Secret."""

from __future__ import annotations

import subprocess
import sys

from tools.support.service import clean_environment


def signing_keys() -> str:
    """A set of one key, made for this test."""
    command = [sys.executable, "-m", "macp_auth", "keys", "generate", "--alg", "ES256"]
    run = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=True)
    return run.stdout
