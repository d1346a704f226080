"""How long certificates are good, and when to say that one ends."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import structlog
from msgspec import Struct

SERVER, CLIENT_AUTHORITY = "server", "client-authority"
"""What certificates are for: the server's own chain, and the authorities that vouch for clients."""
_DAY = 24 * 3600
_NOTICE = 14 * _DAY  # for a certificate of 90 days, renewed when 30 are left: renewal has failed for 16
_NOTICE_SHARE = 1 / 4  # of a shorter life: cert-manager renews when a third is left, and needs a while
_log = structlog.get_logger()


class Validity(Struct, frozen=True):
    """From when to when a certificate is good, in seconds since the epoch."""

    begins: float
    ends: float

    def is_good(self, now: float) -> bool:
        """Whether it has begun, and not ended."""
        return self.begins <= now < self.ends

    def ends_soon(self, now: float) -> bool:
        """Whether it should have been renewed by now."""
        return self.ends - now < min(_NOTICE, (self.ends - self.begins) * _NOTICE_SHARE)

    def end(self) -> str:
        """Return the end, as RFC 3339 has it."""
        return dt.datetime.fromtimestamp(self.ends, dt.UTC).isoformat()


class ExpiryLog:
    """Logs that a certificate ends soon, or has ended: once, and again each day until it is replaced."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, Validity, bool], float] = {}

    def check(self, certificates: Mapping[str, Validity], now: float) -> None:
        """Log what is to be logged now. A certificate that is not there any more is forgotten."""
        states = {
            (use, validity, now >= validity.ends)
            for use, validity in certificates.items()
            if validity.ends_soon(now)
        }
        self._logged = {state: at for state, at in self._logged.items() if state in states}
        for state in sorted(states):
            if abs(now - self._logged.get(state, 0.0)) < _DAY:
                continue
            self._logged[state] = now
            use, validity, expired = state
            if expired:
                _log.error("TLS certificate has expired", certificate=use, expires=validity.end())
            else:
                _log.warning("TLS certificate expires soon", certificate=use, expires=validity.end())
