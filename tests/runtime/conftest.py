"""A real runtime that verifies with our keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.support.macp_runtime import MacpRuntime, verifying
from tools.support.service import Service


@pytest.fixture(scope="session")
def runtime(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MacpRuntime]:
    """One for the tests that only call it, with the keys of ``service``."""
    settings = verifying(f"{service.url}/.well-known/jwks.json")
    with MacpRuntime(tmp_path_factory.mktemp("runtime"), settings) as running:
        yield running
