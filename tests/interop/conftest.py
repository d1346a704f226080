"""Programs of other projects that judge our tokens."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.support.openbao import OpenBao
from tools.support.programs import missing, require_tool

PACKAGE = Path(__file__).parent / "node"


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages installed from the lock file."""
    npm = require_tool("npm", "npm")
    folder = tmp_path_factory.mktemp("node")
    for file in PACKAGE.iterdir():
        shutil.copy(file, folder)
    install = subprocess.run(
        [npm, "ci", "--silent", "--no-audit", "--no-fund"],
        cwd=folder, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    if install.returncode != 0:
        reason = (
            f"npm can't install the verifiers; is its registry reachable? ({install.stderr.strip()[-200:]})"
        )
        missing(reason)
    return folder


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A server with Vault's API."""
    with OpenBao(tmp_path_factory.mktemp("openbao")) as running:
        yield running
