"""The claim set of one token."""

from __future__ import annotations

from typing import Any

import msgspec

from macp_auth.domain.errors import InvalidScopes


class Claims(msgspec.Struct, frozen=True):
    """Exactly what the MACP runtime reads, and nothing else (RFC 7519 names, RFC-MACP-0004 scopes)."""

    macp_scopes: dict[str, Any]
    sub: str
    iss: str
    aud: str
    iat: int
    """Mint time in seconds since the epoch."""
    exp: int
    """Expiry in seconds since the epoch."""

    def encode(self) -> bytes:
        """Return the claims as the JSON bytes that are signed.

        Raises:
            InvalidScopes: a string in the scopes holds a lone surrogate, which UTF-8 can't encode and
                the runtime's parser rejects.
        """
        try:
            return _encoder.encode(self)
        except UnicodeEncodeError:
            raise InvalidScopes("scopes must not contain a lone surrogate") from None


def probe_claims(issuer: str, audience: str, now: float) -> Claims:
    """Return the claims of a token that tests whether the signer can sign.

    Its size is typical and no two are the same. It allows nothing and expired long before ``now`` (seconds
    since the epoch), so it is useless to a thief.
    """
    ended = int(now) - _PROBE_AGE_SECONDS
    return Claims(
        macp_scopes={
            "can_start_sessions": False,
            "can_manage_mode_registry": False,
            "is_observer": False,
            "allowed_modes": ["macp-auth.readiness-probe.v1"] * 4,
            "max_open_sessions": 0,
        },
        sub=f"macp-auth://readiness-probe/{now:.6f}",
        iss=issuer,
        aud=audience,
        iat=ended - 1,
        exp=ended,
    )


_PROBE_AGE_SECONDS = 10 * 365 * 24 * 3600  # more than any leeway or clock error
_encoder = msgspec.json.Encoder()
