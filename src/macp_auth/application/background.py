"""Work that goes on beside the requests, for as long as the application serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import structlog

_log = structlog.get_logger()


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, NoReturn]) -> AsyncIterator[None]:
    """Run ``work``, which has no end of its own, until the context ends; then cancel it, and see it end.

    An error that ends it before is logged then, and does not leave the context.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(_log_error)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])  # and not the task itself: its cancellation would look like ours


def _log_error(task: asyncio.Task[NoReturn]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("background work broke; restart the service", exc_info=error)
