"""Async tests that hang end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

HANG_SECONDS = 60
"""For whatever should end or come by itself: it bounds a hang. How soon it is there, benchmarks measure."""


def bounded(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an async test, for :data:`HANG_SECONDS` at most."""

    async def in_time() -> None:
        async with asyncio.timeout(HANG_SECONDS):
            await test()

    @wraps(test)
    def run() -> None:
        asyncio.run(in_time())

    return run
