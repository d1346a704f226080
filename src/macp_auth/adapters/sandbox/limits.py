"""The limits for a plugin."""

from __future__ import annotations

from msgspec import Struct

from macp_auth.adapters.hookspecs import CONCURRENT_SIGNS, SIGN_SECONDS


class Limits(Struct, frozen=True, kw_only=True):
    """The limits for a plugin."""

    sign_seconds: float = SIGN_SECONDS
    """The deadline of a signature, with its wait for a turn."""
    read_seconds: float = 10.0
    """For reading the keys: no request waits for that, and a backend may have many versions."""
    close_seconds: float = 2.0
    """Less than the time that the service has to stop."""
    pending_signs: int = CONCURRENT_SIGNS
    """Calls in progress and waiting; one more is refused."""
    failures: int = 5
    """Consecutive failures; one or two happen when a backend's leader changes."""
    open_seconds: float = 2.0
    """With the deadline, a recovered backend signs within 5 s."""
