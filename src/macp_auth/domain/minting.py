"""The token request, the minted token, and the mint event."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from macp_auth.domain.callers import Caller
from macp_auth.domain.claims import Claims


class TokenRequest(Struct, frozen=True, kw_only=True):
    """A caller's request, unchecked."""

    sender: object = None
    scopes: object
    ttl_seconds: object = None
    audience: object = None
    """Ignored without a callers file."""


class MintedToken(Struct, frozen=True):
    """A signed token and its claims."""

    token: str
    """In JWS compact serialization (RFC 7515, section 7.1). A credential."""
    kid: str
    claims: Claims
    grant: str | None = None
    """The name of the grant that decided; None without a callers file."""

    def __repr__(self) -> str:
        return f"MintedToken(kid={self.kid!r})"  # keeps the credential out of logs


class MintEvent(Struct, frozen=True, kw_only=True, gc=False):
    """A token request whose response is decided but not yet sent."""

    at: float
    """Decision time in seconds since the epoch."""
    client: str | None
    """The IP address of the peer, if any."""
    request_id: str
    """Sent in the response as ``x-request-id``."""
    request: TokenRequest | None
    """The request; None if the body was not read or is not JSON."""
    minted: MintedToken | None
    """The token; None if the request was refused or failed."""
    status: int
    """The HTTP status of the response."""
    reason: str | None
    """Why there is no token, one of a few words in lower case and hyphens; None if there is one."""
    caller: Caller | None = None
    """Who called; None if that is not known."""
    grant: str | None = None
    """The name of the grant that decided; None if none did."""


Observer = Callable[[MintEvent], None]
"""Called on the event loop before the response is sent. Must return at once and must not raise."""
