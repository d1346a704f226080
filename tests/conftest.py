"""Fixtures that more than one test folder needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tools.support.programs import ProgramMissing
from tools.support.service import Service


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:  # noqa: ARG001 - pytest's name
    """Skip a test whose fixture needs a missing program."""
    with _skipping():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:  # noqa: ARG001 - pytest's name
    """Skip a test that needs a missing program."""
    with _skipping():
        return (yield)


@contextmanager
def _skipping() -> Iterator[None]:
    try:
        yield
    except ProgramMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the tests that only talk to it: defaults, so an ephemeral RS256 key."""
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services with an environment and arguments of the test's own; stops them all."""
    with ExitStack() as stack:

        def start(env: dict[str, str] | None = None, *args: str) -> Service:
            return stack.enter_context(Service(tmp_path, env, *args))

        yield start
