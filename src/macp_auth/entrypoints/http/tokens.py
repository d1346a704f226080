"""``POST /tokens``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send

from macp_auth.application.minting import Minter, TokenRequest
from macp_auth.domain.clock import Moment
from macp_auth.entrypoints.http.attempts import Observer, tell
from macp_auth.entrypoints.http.body import check_headers, read_body
from macp_auth.entrypoints.http.responses import send_json
from macp_auth.entrypoints.http.token_request import decode_token_request

PATH = "/tokens"
_NO_STORE = [(b"cache-control", b"no-store")]  # a token is a credential (RFC 6749, section 5.1)
_encode = msgspec.json.Encoder().encode


class TokenAnswer(msgspec.Struct, frozen=True):
    """What the caller gets; the field names are the wire's."""

    token: str
    sender: str
    expires_in_seconds: int
    """``exp`` minus ``iat`` of the token, always. ``iat`` is rounded down: it lives up to a second less."""


CallerCheck = Callable[[Scope], None]
"""Raises a refusal if this request may get no token, whatever it asks for."""


def token_app(
    minter: Minter,
    observers: Sequence[Observer],
    *,
    now: Callable[[], Moment],
    caller_checks: Sequence[CallerCheck] = (),
) -> ASGIApp:
    """Return the application that mints, and tells ``observers`` of each attempt before it is answered.

    Args:
        minter: what mints.
        observers: who is told.
        now: says what time it is, or raises ClockStepped.
        caller_checks: who may mint.
    """

    async def mint_token(scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        request: TokenRequest | None = None
        try:
            for check_caller in caller_checks:
                check_caller(scope)
            check_headers(scope["headers"])
            request = decode_token_request(await read_body(receive))
            minted = await minter.mint(request, now)
        except Exception as error:
            tell(observers, scope, began, request, error)
            raise
        tell(observers, scope, began, request, minted)
        claims = minted.claims
        answer = TokenAnswer(minted.token, claims.sub, claims.exp - claims.iat)
        await send_json(send, _encode(answer), _NO_STORE)

    return mint_token
