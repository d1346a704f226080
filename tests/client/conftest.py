"""Services, and sources of both kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.client.support import ES256, OnALoop, Source, in_threads
from tools.support.service import Service


@pytest.fixture(params=["threads", "tasks"])
def make_source(request: pytest.FixtureRequest) -> Iterator[Callable[..., Source]]:
    """Makes a TokenSource, or an AsyncTokenSource that threads can call."""
    with ExitStack() as stack:

        def make(url: str, *args: Any, **options: Any) -> Source:
            if request.param == "threads":
                return in_threads(url, *args, **options)
            source = OnALoop(url, *args, **options)
            stack.callback(source.close)
            return source

        yield make


@pytest.fixture
def own_service(start_service: Callable[..., Service]) -> Service:
    """An open service of the test's own, to be stopped."""
    return start_service(ES256)


@pytest.fixture
def sender(request: pytest.FixtureRequest) -> str:
    """A sender of the test's own, to count its requests at a shared service."""
    return str(request.node.name)
