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
    """When it was minted: seconds since the epoch."""
    exp: int
    """When it ends: seconds since the epoch."""

    def encode(self) -> bytes:
        """Return the claims as the JSON bytes that are signed.

        Raises:
            InvalidScopes: a string in the scopes holds half a surrogate pair, which UTF-8 can't
                carry and the runtime's parser refuses.
        """
        try:
            return _encoder.encode(self)
        except UnicodeEncodeError:
            raise InvalidScopes("scopes must not contain a lone surrogate") from None


_encoder = msgspec.json.Encoder()
