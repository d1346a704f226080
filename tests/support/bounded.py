"""Async tests that hang end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any


def bounded(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an async test, for five seconds at most."""

    async def in_time() -> None:
        async with asyncio.timeout(5):
            await test()

    @wraps(test)
    def run() -> None:
        asyncio.run(in_time())

    return run
