"""What minting is about: the request, the token, and the event that observers see."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from macp_auth.domain.claims import Claims


class TokenRequest(Struct, frozen=True, kw_only=True):
    """What a caller asks for, as sent and unchecked."""

    sender: object = None
    scopes: object
    ttl_seconds: object = None


class MintedToken(Struct, frozen=True):
    """A signed token, and what is in it."""

    token: str
    """In JWS compact serialization (RFC 7515, section 7.1). A credential."""
    kid: str
    claims: Claims

    def __repr__(self) -> str:
        return f"MintedToken(kid={self.kid!r})"  # a credential is in no log


class MintEvent(Struct, frozen=True, kw_only=True, gc=False):
    """One request for a token whose answer is decided and not sent yet."""

    at: float
    """When it was decided, in seconds since the epoch."""
    client: str | None
    """The IP address of the peer; None if there is none."""
    request_id: str
    """Also in the answer, as ``x-request-id``."""
    request: TokenRequest | None
    """What was asked for; None if the body was not read, or is not JSON."""
    minted: MintedToken | None
    """The token; None if the request was refused or failed."""
    status: int
    """The HTTP status of the answer."""
    reason: str | None
    """Why there is no token, in one word of lower case and hyphens, out of few; None if there is one."""


Observer = Callable[[MintEvent], None]
"""Is called on the event loop between the decision and the answer. Must return at once, and not raise."""
