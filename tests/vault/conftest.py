"""Servers with a transit engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.support.openbao import OpenBao
from tools.support.tls import Certificates, make_certificates


@pytest.fixture(scope="module")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """One server for a module's tests that don't disturb it."""
    with OpenBao(tmp_path_factory.mktemp("openbao")) as running:
        yield running


@pytest.fixture
def own_openbao(tmp_path: Path) -> Iterator[OpenBao]:
    """A server of the test's own: to be stopped, sealed and broken."""
    with OpenBao(tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and a server's certificate from it."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def key_name() -> str:
    """The name of a key that no other test has."""
    return f"key-{uuid.uuid4().hex[:8]}"
