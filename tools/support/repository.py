"""Where the repository is, and what its clones share."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def user_cache() -> Path:
    """The folder for what takes minutes to build, of this user and outside of any clone."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "macp-auth"
