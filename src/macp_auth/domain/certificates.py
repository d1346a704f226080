"""The validity of a certificate and when to warn about its end."""

from __future__ import annotations

from msgspec import Struct

SERVER, CLIENT_AUTHORITY = "server", "client-authority"
"""The use of a certificate: the server's own chain, or an authority that signs client certificates."""
_DAY = 24 * 3600
_NOTICE = 14 * _DAY  # a 90-day certificate is renewed when 30 days are left: renewal has failed for 16
_NOTICE_SHARE = 1 / 4  # of a shorter lifetime: cert-manager renews when a third is left, and needs time


class Validity(Struct, frozen=True):
    """The validity period of a certificate, in seconds since the epoch."""

    begins: float
    ends: float

    def ends_soon(self, now: float) -> bool:
        """Whether the certificate should have been renewed by ``now``."""
        return self.ends - now < min(_NOTICE, (self.ends - self.begins) * _NOTICE_SHARE)
