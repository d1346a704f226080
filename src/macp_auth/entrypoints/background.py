"""Work that goes on beside the requests, for as long as the application serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, NoReturn]) -> AsyncIterator[None]:
    """Run ``work``, which has no end of its own, until the context ends; then cancel it, and see it end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
