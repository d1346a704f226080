"""When to mint, and which token lives: no clock, no lock, no socket.

Times are seconds of a monotonic clock, so a wrong or stepped wall clock changes nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from macp_auth_client.errors import MintError

_REFRESH_SHARE = 2 / 3
_JITTER_SHARE = 0.1
"""Agents that started together refresh spread over a tenth of the lifetime, never later than two thirds."""
_MARGIN_SHARE = 0.2
_MAX_MARGIN_SECONDS = 5.0
"""A token is not handed out in its last seconds. It lives up to 1 s less than the answer says, because the
service rounds ``iat`` down; the rest is for the call that carries it."""
_FIRST_RETRY_SECONDS = 0.5
_MAX_RETRY_SECONDS = 10.0
"""A source notices within about ten seconds that the service is back, and asks no more often meanwhile."""
_MAX_RETRY_AFTER_SECONDS = 60.0
"""macp-auth's longest is 60 s, for a grant of one token a minute. More is a fault of something between."""
_INVALIDATION_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True)
class Token:
    """A token, as the service answered.

    Attributes:
        value: the JWT.
        lifetime: seconds, ``expires_in_seconds``.
        requested_at: when the request began, so before the token's own time begins.
    """

    value: str
    lifetime: float
    requested_at: float

    def __repr__(self) -> str:
        return f"<Token for {self.lifetime} s>"


class Schedule:
    """The current token, and when the next request may begin."""

    def __init__(self) -> None:
        self.failure: MintError | None = None
        """Of the last request; None after a token."""
        self._token: Token | None = None
        self._refresh_at = 0.0
        self._live_until = 0.0
        self._not_before = 0.0
        self._failures = 0

    def live(self, now: float) -> str | None:
        """Return the token, if it lives."""
        return self._token.value if self._token and now < self._live_until else None

    def due(self, now: float) -> bool:
        """Return whether a request should begin."""
        return self.pause(now) <= 0 and (self.live(now) is None or now >= self._refresh_at)

    def pause(self, now: float) -> float:
        """Return the seconds until the next request may begin."""
        return self._not_before - now

    def remaining(self, now: float) -> float:
        """Return the seconds for which the token still lives; 0 if there is none."""
        return max(0.0, self._live_until - now) if self._token else 0.0

    def minted(self, token: Token) -> None:
        """Take a new token, unless a newer one is there."""
        if self._token and token.requested_at < self._token.requested_at:
            return
        share = _REFRESH_SHARE - _JITTER_SHARE * random.random()  # noqa: S311 - it spreads load
        self._refresh_at = token.requested_at + token.lifetime * share
        margin = min(_MAX_MARGIN_SECONDS, token.lifetime * _MARGIN_SHARE)
        self._live_until = token.requested_at + token.lifetime - margin
        self._token, self.failure, self._failures = token, None, 0

    def failed(self, failure: MintError, now: float) -> None:
        """Note a failure: the next request waits as long as the service asks, and longer each time."""
        jitter = random.random()  # noqa: S311 - it spreads load
        backoff = min(_MAX_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(self._failures, 10))
        asked = min(failure.retry_after or 0.0, _MAX_RETRY_AFTER_SECONDS)
        self._not_before = now + max(backoff * (1 - jitter / 2), asked * (1 + jitter / 4))
        self.failure = failure
        self._failures += 1

    def invalidate(self, token: str) -> None:
        """Drop ``token``, if it is the current one.

        The next request begins a second after that token's at the earliest: a caller that is refused for
        another reason, and invalidates each token, does not become a flood of requests.
        """
        if self._token and self._token.value == token:
            earliest = self._token.requested_at + _INVALIDATION_INTERVAL_SECONDS
            self._not_before = max(self._not_before, earliest)
            self._token = None
