"""A rate limit for events that a peer can cause at will."""

from __future__ import annotations


class Allowance:
    """Allows a number of events per interval; an interval begins with its first event.

    Args:
        number: how many.
        seconds: the interval.
    """

    __slots__ = ("_end", "_left", "_number", "_seconds")

    def __init__(self, number: int, seconds: float) -> None:
        self._number = number
        self._seconds = seconds
        self._left = 0
        self._end = float("-inf")

    def take(self, now: float) -> bool:
        """Return whether an event at ``now`` (monotonic seconds) is allowed, and count it."""
        if now >= self._end:
            self._end = now + self._seconds
            self._left = self._number
        if self._left <= 0:
            return False
        self._left -= 1
        return True
