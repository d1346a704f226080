"""Fixtures for what is in deploy/."""

from __future__ import annotations

from typing import Any

import pytest

import macp_auth
from tests.deploy.helm import Tools, find_tools
from tools.support.container_engine import BASE, Engine, find_engine

IMAGE, SHELL_LESS = "localhost/macp-auth-test-image", "localhost/macp-auth-test-shell-less-base"
BUILD_ARGUMENTS: dict[str, Any] = {
    "VERSION": macp_auth.__version__,
    "REVISION": "0123abc",
    "SOURCE": "https://forge.example.com/macp-auth",
    "DOCUMENTATION": "https://forge.example.com/macp-auth/docs",
    "BASE_DIGEST": f"sha256:{'0' * 64}",
}
REMOVE_SHELLS = "import glob, os; [os.remove(f) for d in ('/bin', '/usr/bin') for f in glob.glob(d + '/*sh')]"


@pytest.fixture(scope="session")
def tools() -> Tools:
    return find_tools()


@pytest.fixture(scope="session")
def engine() -> Engine:
    return find_engine()


@pytest.fixture(scope="session")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Our image, on a base whose shells are gone."""
    context = tmp_path_factory.mktemp("base")
    (context / "Dockerfile").write_text(f'FROM {BASE}\nRUN ["python", "-c", "{REMOVE_SHELLS}"]\n')
    engine.build(SHELL_LESS, context)
    engine.build_ours(IMAGE, BASE=BASE, RUNTIME_BASE=SHELL_LESS, **BUILD_ARGUMENTS)
    return IMAGE
