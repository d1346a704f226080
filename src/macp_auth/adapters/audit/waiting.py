"""Lock-free queues for lines that wait to be written: one thread adds, another takes.

No lock is needed because only one of the two threads changes each number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from msgspec import Struct

LINE_OVERHEAD = 64
"""Overhead of a line in bytes: 33 for the object, 8 for the queue, and rounding."""
MAX_NAMES = 30
"""A plugin may have its own reasons, of up to 99 characters; this many fit into a line."""
OTHER = "other"


class LineQueue:
    """Waiting lines, up to ``max_bytes`` of memory."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._put = 0  # bytes, total
        self._taken = 0

    def __len__(self) -> int:
        return len(self._lines)

    def put(self, line: bytes) -> bool:
        """Add ``line``; return False if there is no room."""
        put = self._put + len(line) + LINE_OVERHEAD
        if put - self._taken > self._max_bytes:
            return False
        self._put = put
        self._lines.append(line)
        return True

    def take(self, count: int) -> list[bytes]:
        """Remove and return up to ``count`` lines."""
        taken = [self._lines.popleft() for _ in range(min(len(self._lines), count))]
        self._taken += _memory(taken)
        return taken

    def put_back(self, lines: Sequence[bytes]) -> None:
        """Put ``lines`` back in front, even without room. For the thread that takes."""
        self._lines.extendleft(reversed(lines))
        self._taken -= _memory(lines)


def _memory(lines: Sequence[bytes]) -> int:
    return sum(map(len, lines)) + LINE_OVERHEAD * len(lines)


class Sum(Struct, frozen=True):
    """The counts of one period."""

    since: float
    """Time of the first, in seconds since the epoch."""
    counts: Mapping[str, int]


class Tally:
    """Counts by name, reported periodically."""

    def __init__(self) -> None:
        self.total = 0
        """The total count."""
        self._counts: dict[str, int] = {}
        self._since = 0.0
        self._reported = 0
        self._reported_counts: dict[str, int] = {}

    @property
    def unreported(self) -> int:
        """The count since the last report."""
        return self.total - self._reported

    def count(self, name: str, at: float) -> None:
        """Count one at ``at``, in seconds since the epoch."""
        self._since = self._since or at
        if name not in self._counts and len(self._counts) >= MAX_NAMES:
            name = OTHER
        self._counts[name] = self._counts.get(name, 0) + 1
        self.total += 1  # last: a report includes at least this many

    def report(self, at: float) -> Sum:
        """Return the counts since the last report."""
        since, self._since = self._since or at, 0.0
        total, counts = self.total, self._counts.copy()
        before = self._reported_counts
        self._reported, self._reported_counts = total, counts
        new = {name: count - before.get(name, 0) for name, count in counts.items()}
        return Sum(since, {name: count for name, count in new.items() if count})
