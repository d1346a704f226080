"""Detects steps of the wall clock by comparing it with a steady clock.

The wall clock is trusted at the start. From then on, a steady clock (one that only counts elapsed
seconds) predicts what the wall clock should show; the difference is the *offset*. NTP's gradual
corrections change the rate of both clocks, so an offset means a step: the clock was set.

Nothing here can say which clock is right after a step. Therefore:

* Up to the largest tolerated step, both clocks count. A token is issued at the earlier of the two
  times, so that it lives no longer than requested by either, and only if it outlives the later one.
  After :data:`SETTLE_SECONDS` without another step, the wall clock is trusted again: a clock that NTP
  corrects in small steps must not end up far from the adjusted time.
* After a larger step, no token is issued. A clock that jumped ahead would make tokens that live too
  long, and would drop keys whose tokens are still valid. The clock is trusted again when it returns to
  where it should be or, if configured, after enough time without another step, as after a pause of the
  machine that the steady clock did not see. Waiting proves nothing, so this is off by default: an
  operator who knows the right time restarts the service.

The key schedule uses only the adjusted time, so a clock step never adds or removes a key.
"""

from __future__ import annotations

from msgspec import Struct

from macp_auth.domain.errors import ClockStepped

SETTLE_SECONDS = 60.0
"""Time without another step after which the clock is trusted again, for a tolerated step."""
NOISE_SECONDS = 1.0
"""A smaller offset is not a step: the clocks are read one after the other. A leap second is within it."""


class TimeInterval(Struct, frozen=True):
    """The current time by the earlier and the later of two clocks, in seconds since the epoch."""

    earliest: float
    latest: float


class ClockMonitor:
    """The time by a steady clock, and the offset of the wall clock from it.

    Args:
        wall: the wall clock now, in seconds since the epoch.
        steady: the steady clock now, in seconds since any fixed time.
        tolerated: the largest step after which tokens are issued, in seconds.
        accept_after: seconds without another step after which a larger step is accepted; None for never.
    """

    def __init__(self, wall: float, steady: float, *, tolerated: float, accept_after: float | None) -> None:
        self._base = wall - steady
        self._tolerated = tolerated
        self._accept_after = accept_after
        self._seen, self._seen_since = self._base, steady
        self.offset = 0.0
        """Seconds by which the wall clock was ahead of the adjusted time at the last check; negative if
        behind."""

    @property
    def trusted(self) -> bool:
        """Whether tokens may be issued."""
        return abs(self.offset) <= self._tolerated

    def time(self, steady: float) -> float:
        """Return the adjusted time in seconds since the epoch. It jumps only when a step is accepted."""
        return self._base + steady

    def check(self, wall: float, steady: float) -> float:
        """Compare the clocks; return the step that was accepted, in seconds, usually 0."""
        seen = wall - steady
        if abs(seen - self._seen) > NOISE_SECONDS:
            self._seen, self._seen_since = seen, steady
        self.offset = seen - self._base
        patience = SETTLE_SECONDS if self.trusted else self._accept_after
        if abs(self.offset) <= NOISE_SECONDS or patience is None or steady - self._seen_since < patience:
            return 0.0
        settled, self._base, self.offset = self.offset, seen, 0.0
        return settled

    def interval(self, wall: float, steady: float) -> TimeInterval:
        """Return the time for a token; call :meth:`check` first.

        Raises:
            ClockStepped: the clock is not trusted.
        """
        if not self.trusted:
            raise ClockStepped(f"the clock is {self.offset:+.0f} s from where it should be")
        if abs(self.offset) <= NOISE_SECONDS:
            return TimeInterval(wall, wall)
        adjusted = self.time(steady)
        return TimeInterval(min(wall, adjusted), max(wall, adjusted))
