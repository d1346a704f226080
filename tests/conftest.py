"""Fixtures that more than one test folder needs."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tools.support.programs import ProgramMissing
from tools.support.service import Service

# How long an example takes depends on what else the machine does.
settings.register_profile(
    "any-machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")

# A shell has its background jobs ignore Ctrl-C, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start the service, so that ``make test-fast`` leaves them out."""
    for item in items:
        if {"service", "start_service"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("process")


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


@pytest.fixture(autouse=True)
def default_logs() -> Iterator[None]:
    """Logs as they were: what a test's command sets up would also reach the tests after it."""
    loggers = [logging.root, logging.getLogger("uvicorn.error")]
    before = [(logger.level, logger.handlers[:]) for logger in loggers]
    yield
    structlog.reset_defaults()
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


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
