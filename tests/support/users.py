"""What only root can do: run a process as another user, and look into a service. Such a test is skipped."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

_SEE_INTERPRETER = """
set -e
mount --bind "$1" "$2"
mount -t tmpfs -o mode=755 none "$3"
mkdir -p "$1"
mount --bind "$2" "$1"
shift 3
exec "$@"
"""
"""In a mount namespace of its own, lets everybody see an interpreter that is in a home of root's."""


def require_root() -> None:
    """Skip the test if files can't be given to other users."""
    if os.geteuid() != 0:
        pytest.skip("files of another user are made: run the tests as root")


def require_view_of_services() -> None:
    """Skip the test if it can't look into a service, whose memory and descriptors its own user can't see."""
    if os.geteuid() != 0:
        pytest.skip("a service hides its memory and descriptors from its own user: run the tests as root")


def as_user(uid: int, directory: Path) -> list[str]:
    """What stands before a command so that ``uid``, who has a group of the same number, runs it."""
    require_root()
    if not all(shutil.which(tool) for tool in ("setpriv", "unshare", "mount")):
        pytest.skip("needs setpriv and unshare (util-linux)")
    drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    base = Path(sys.base_prefix)
    hidden = [folder for folder in base.parents if not folder.stat().st_mode & stat.S_IXOTH]
    if not hidden:
        return drop
    place = directory / "interpreter"
    place.mkdir(exist_ok=True)
    own_mounts = ["unshare", "--mount", "--propagation=private", "--"]
    return [*own_mounts, "sh", "-c", _SEE_INTERPRETER, "sh", str(base), str(place), str(hidden[-1]), *drop]
