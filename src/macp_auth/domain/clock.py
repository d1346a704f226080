"""What time it is, when the wall clock may step: it is compared with a steady clock, which does not.

At the start, the wall clock is believed. From then on a steady clock (one that only counts the
seconds that pass) says what the wall clock should show, and the difference is the *offset*. NTP's
gradual corrections change the rate of both clocks, so what shows as offset are steps: somebody or
something set the clock.

Nothing here tells which of the two is right after a step. So, until that is settled:

* Up to the largest tolerated step, both count. A token is issued at the earlier of the two times, so
  that it lives no longer than asked by either, and only if it outlives the later one. When the wall
  clock has then gone on for :data:`SETTLE_SECONDS` without another step, it is believed again: a
  clock that NTP corrects in small steps must not end up far from the reckoning.
* Beyond that, no token is issued. A clock that leapt ahead would make tokens that live for as long as
  it was wrong, and would drop keys whose tokens are alive. It is believed again when it is back where
  it should be; or, if that is wished, when it has gone on for long enough without another step, as
  after a machine's pause that the steady clock did not see. Waiting proves nothing, so it is not the
  default: who knows which time is right restarts the service.

The schedule of keys goes by the reckoning alone, so no key comes or goes because the clock jumped.
"""

from __future__ import annotations

from msgspec import Struct

from macp_auth.domain.errors import ClockStepped

SETTLE_SECONDS = 60.0
"""How long a clock must go on without another step to be believed after a tolerated one."""
NOISE_SECONDS = 1.0
"""No step: two clocks are read one after the other, on a busy machine. A leap second is one, too."""


class TimeInterval(Struct, frozen=True):
    """Now, as far as it is known: by the earlier and the later of two clocks, in seconds since the epoch."""

    earliest: float
    latest: float


class ClockMonitor:
    """The time by a steady clock, and how far the wall clock is from it.

    Args:
        wall: what the wall clock shows now, in seconds since the epoch.
        steady: what the steady clock shows now, in seconds since whenever.
        tolerated: the largest step after which tokens are issued, in seconds.
        accept_after: so many seconds without another step, and a larger one is believed; None, never.
    """

    def __init__(self, wall: float, steady: float, *, tolerated: float, accept_after: float | None) -> None:
        self._base = wall - steady
        self._tolerated = tolerated
        self._accept_after = accept_after
        self._seen, self._seen_since = self._base, steady
        self.offset = 0.0
        """Seconds by which the wall clock was ahead of the reckoning at the last look; or behind, below 0."""

    @property
    def trusted(self) -> bool:
        """Whether tokens may be issued."""
        return abs(self.offset) <= self._tolerated

    def time(self, steady: float) -> float:
        """Return the time by reckoning, in seconds since the epoch. It never jumps but by what is settled."""
        return self._base + steady

    def check(self, wall: float, steady: float) -> float:
        """Compare the clocks; return by how many seconds the reckoning was set anew, mostly 0."""
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
        """Return the time for a token; look first.

        Raises:
            ClockStepped: the clock is not trusted.
        """
        if not self.trusted:
            raise ClockStepped(f"the clock is {self.offset:+.0f} s from where it should be")
        if abs(self.offset) <= NOISE_SECONDS:
            return TimeInterval(wall, wall)
        reckoned = self.time(steady)
        return TimeInterval(min(wall, reckoned), max(wall, reckoned))
