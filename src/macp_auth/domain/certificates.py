"""How long certificates are good, and when to say that one ends."""

from __future__ import annotations

from msgspec import Struct

SERVER, CLIENT_AUTHORITY = "server", "client-authority"
"""What certificates are for: the server's own chain, and the authorities that vouch for clients."""
_DAY = 24 * 3600
_NOTICE = 14 * _DAY  # for a certificate of 90 days, renewed when 30 are left: renewal has failed for 16
_NOTICE_SHARE = 1 / 4  # of a shorter life: cert-manager renews when a third is left, and needs a while


class Validity(Struct, frozen=True):
    """From when to when a certificate is good, in seconds since the epoch."""

    begins: float
    ends: float

    def ends_soon(self, now: float) -> bool:
        """Whether it should have been renewed by now."""
        return self.ends - now < min(_NOTICE, (self.ends - self.begins) * _NOTICE_SHARE)
