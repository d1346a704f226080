"""What waits in memory to be written. One thread puts in, another takes out, and neither waits for a lock.

That works because each number here is changed by one of the two only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from msgspec import Struct

LINE_OVERHEAD = 64
"""Bytes that Python needs for a line beside its content: 33 of the object, 8 of the queue, and rounding."""
MAX_NAMES = 30
"""A plugin's signer may bring reasons of its own, of 99 characters; so many fit into a line."""
OTHER = "other"


class LineQueue:
    """Lines that wait, up to so many bytes of memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._put = 0  # bytes, ever
        self._taken = 0

    def __len__(self) -> int:
        return len(self._lines)

    def put(self, line: bytes) -> bool:
        """Add ``line``; return False if there is no room for it."""
        put = self._put + len(line) + LINE_OVERHEAD
        if put - self._taken > self._max_bytes:
            return False
        self._put = put
        self._lines.append(line)
        return True

    def take(self, count: int) -> list[bytes]:
        """Take out the first lines, of no more than this number."""
        taken = [self._lines.popleft() for _ in range(min(len(self._lines), count))]
        self._taken += _memory(taken)
        return taken

    def put_back(self, lines: Sequence[bytes]) -> None:
        """Put ``lines`` before all others, whether there is room or not. For the thread that takes."""
        self._lines.extendleft(reversed(lines))
        self._taken -= _memory(lines)


def _memory(lines: Sequence[bytes]) -> int:
    return sum(map(len, lines)) + LINE_OVERHEAD * len(lines)


class Sum(Struct, frozen=True):
    """What was counted for some time."""

    since: float
    """When the first of it was counted, in seconds since the epoch."""
    counts: Mapping[str, int]


class Tally:
    """Counts by name, that are reported from time to time."""

    def __init__(self) -> None:
        self.total = 0
        """How many were counted, ever."""
        self._counts: dict[str, int] = {}
        self._since = 0.0
        self._reported = 0
        self._reported_counts: dict[str, int] = {}

    @property
    def unreported(self) -> int:
        """How many were counted and not reported yet."""
        return self.total - self._reported

    def count(self, name: str, at: float) -> None:
        """Count one, at this time, in seconds since the epoch."""
        self._since = self._since or at
        if name not in self._counts and len(self._counts) >= MAX_NAMES:
            name = OTHER
        self._counts[name] = self._counts.get(name, 0) + 1
        self.total += 1  # last: what is reported has all that this says, or more

    def report(self, at: float) -> Sum:
        """Return what was counted since the last report; at this time."""
        since, self._since = self._since or at, 0.0
        total, counts = self.total, self._counts.copy()
        before = self._reported_counts
        self._reported, self._reported_counts = total, counts
        new = {name: count - before.get(name, 0) for name, count in counts.items()}
        return Sum(since, {name: count for name, count in new.items() if count})
