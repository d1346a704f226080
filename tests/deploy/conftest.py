"""Fixtures for what is in deploy/."""

from __future__ import annotations

import pytest

from tests.deploy.helm import Tools, find_tools


@pytest.fixture(scope="session")
def tools() -> Tools:
    return find_tools()
