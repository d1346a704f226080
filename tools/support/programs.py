"""Programs that some tests and tools need."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn


class ProgramMissing(Exception):
    """A program is not on this machine; the text says what to install. A test is skipped by it."""


_PACKAGES = {"sha256sum": "coreutils"}


def require_tools(*names: str) -> None:
    """Each of ``names``, which are of Debian packages of the same names but for a few."""
    for name in names:
        require_tool(name, _PACKAGES.get(name, name))


def require_tool(name: str, package: str) -> str:
    """The path of ``name``, of a Debian package."""
    return shutil.which(name) or missing(f"{name} is missing; install Debian's package {package}")


def require_script(name: str, package: str) -> str:
    """The path of ``name``, from a Python package: beside the interpreter, or else on the path."""
    beside = shutil.which(name, path=Path(sys.executable).parent)
    return beside or shutil.which(name) or missing(f"{name} is missing; install Python's package {package}")


def missing(reason: str) -> NoReturn:
    """Raise ProgramMissing, or fail in CI, where nothing may be missing."""
    if os.environ.get("CI"):
        raise AssertionError(reason)
    raise ProgramMissing(reason)
