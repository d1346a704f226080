"""The open connections of one listener in one process: how many there may be, and for how long.

At the bound, a new connection takes the place of the one that has waited for its client longest: before
its first request, within one, or between two. One whose request is being answered is left alone.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import structlog

from macp_auth.entrypoints.server.malloc_trim import MallocTrim

MAX_CONNECTIONS = 1000
"""The default bound of a worker; gunicorn's. Idle, each takes 6 KB, or with TLS 60 KB."""
RETIRE_SPREAD_SECONDS = 10.0
"""Over how long connections of an older trust are closed, so that not all clients come back at once."""
QUIET_SECONDS = 10.0
"""How long nothing must have been shed until it is said to be over. So the log has few lines of it."""
_ROOM = 16  # connections that are shed when there is no descriptor: more will come
_AGE_JITTER = 0.1  # as gRPC's MaxConnectionAge, but never later
_log = structlog.get_logger()
_random = random.Random()  # noqa: S311 - spreads load; nothing secret


class Connection(Protocol):
    """What is asked of a connection."""

    def retire(self) -> None:
        """Let the request in progress, or one on its way, be the last."""

    def shed(self) -> None:
        """Close at once."""


class Connections:
    """Counts, bounds and ends connections. Belongs to the thread of one event loop.

    Args:
        listener: its name, for the log.
        maximum: how many there may be.
        max_age: the greatest age of one, in seconds.
    """

    def __init__(self, listener: str, maximum: int, max_age: float) -> None:
        self._listener = listener
        self._maximum = maximum
        self._max_age = max_age
        self._open: set[Connection] = set()
        self._waiting: OrderedDict[Connection, None] = OrderedDict()  # the longest first
        self._shed = 0
        self._needed = 0  # how often room was needed
        self._needed_when_checked = 0
        self._episode: int | None = None  # what `_shed` was when the connections became too many
        self.stopping = False
        """Whether the server stops: a connection whose handshake ends now has one request at most."""
        self._malloc_trim = MallocTrim()
        self._shed_observers: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._open)

    @property
    def idle(self) -> int:
        """How many wait for their client."""
        return len(self._waiting)

    def observe_shed(self, observer: Callable[[], None]) -> None:
        """Call ``observer`` for each connection that is shed from now on; it must return at once."""
        self._shed_observers.append(observer)

    def lifetime(self) -> float:
        """Return the seconds that a new connection may live."""
        return self._max_age * (1 - _random.uniform(0, _AGE_JITTER))

    def opened(self, connection: Connection) -> None:
        """Take up a connection, which waits for its client. One that is known already is left as it is."""
        if connection in self._open:
            return
        self._open.add(connection)
        self._waiting[connection] = None
        if len(self._open) > self._maximum:
            self._shed_longest_idle(
                "connection limit reached; closing the longest-idle connections", limit=self._maximum
            )

    def waiting(self, connection: Connection) -> None:
        """Note that from now on, it is the client's turn."""
        if connection in self._open:
            self._waiting[connection] = None

    def working(self, connection: Connection) -> None:
        """Note that from now on, it is our turn."""
        self._waiting.pop(connection, None)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)
        self._malloc_trim.soon()

    def out_of_descriptors(self) -> None:
        """Make room for connections that could not be accepted."""
        for _ in range(_ROOM):
            self._shed_longest_idle("no file descriptor left; closing the longest-idle connections")

    def retire_all(self) -> None:
        """End all that are open now, each after the request in progress; soon, but not all at once."""
        loop = asyncio.get_running_loop()
        for connection in self._open:
            loop.call_later(_random.uniform(0, RETIRE_SPREAD_SECONDS), connection.retire)

    def _shed_longest_idle(self, event: str, **details: int) -> None:
        self._needed += 1
        if self._episode is None:
            _log.warning(event, listener=self._listener, open=len(self._open), **details)
            self._episode, self._needed_when_checked = self._shed, self._needed
            asyncio.get_running_loop().call_later(QUIET_SECONDS, self._check_whether_over)
        if not self._waiting:
            return
        connection, _ = self._waiting.popitem(last=False)
        self._open.discard(connection)  # now, for it may take a moment to be closed
        self._shed += 1
        for observe in self._shed_observers:
            observe()
        connection.shed()

    def _check_whether_over(self) -> None:
        if self._needed == self._needed_when_checked and self._episode is not None:
            closed = self._shed - self._episode
            _log.info("connection limit no longer reached", listener=self._listener, closed=closed)
            self._episode = None
            return
        self._needed_when_checked = self._needed
        asyncio.get_running_loop().call_later(QUIET_SECONDS, self._check_whether_over)
