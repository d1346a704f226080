"""So many in each interval, and no more: for what a peer can cause as often as it likes."""

from __future__ import annotations


class Allowance:
    """A number that may be taken in each interval; an interval begins with the first that is taken.

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
        """Take one, at a time of the monotonic clock; return whether there was one left."""
        if now >= self._end:
            self._end = now + self._seconds
            self._left = self._number
        if self._left <= 0:
            return False
        self._left -= 1
        return True
