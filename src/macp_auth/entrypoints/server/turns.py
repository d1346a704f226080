"""Turns of the event loop, shared out among connections that have sent more than one turn's work.

A connection that sends one request at a time never waits here. So however many connections send
thousands in one write, a single request finds the loop free within a few milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

EACH_TURN = 8
"""How many connections go on in one turn of the event loop."""


class Turns:
    """Calls back a few of those who wait, in the order in which they came, in each turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call ``go_on`` in a later turn."""
        self._waiting.append(go_on)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        try:
            for _ in range(min(EACH_TURN, len(self._waiting))):
                self._waiting.popleft()()
        finally:
            self._schedule()
