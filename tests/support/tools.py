"""Programs that are not Python packages, which a few tests need."""

from __future__ import annotations

import os
import shutil

import pytest


def require_tool(name: str, package: str) -> str:
    """The path of ``name``. Without it the test is skipped, but in CI, where nothing may be, it fails."""
    if path := shutil.which(name):
        return path
    reason = f"{name} is missing; install Debian's package {package}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
