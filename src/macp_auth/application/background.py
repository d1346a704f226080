"""Background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import structlog

_log = structlog.get_logger()


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, NoReturn]) -> AsyncIterator[None]:
    """Run ``work`` until the context exits, then cancel it and wait for its end.

    An error in ``work`` is logged when it happens and does not leave the context.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(_log_error)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])  # awaiting the task itself would raise its cancellation here


def _log_error(task: asyncio.Task[NoReturn]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("background task failed; restart the service", exc_info=error)
