"""``POST /tokens``."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
import structlog
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from macp_auth.application.mint import Minter
from macp_auth.domain.callers import Caller
from macp_auth.domain.clock import TimeInterval
from macp_auth.domain.minting import MintedToken, MintEvent, Observer, TokenRequest
from macp_auth.entrypoints.http import openapi
from macp_auth.entrypoints.http.body import check_headers, read_body
from macp_auth.entrypoints.http.caller_checks import CallerCheck
from macp_auth.entrypoints.http.credentials import Authenticate, anonymous
from macp_auth.entrypoints.http.errors import reason_word, status_of
from macp_auth.entrypoints.http.responses import send_json
from macp_auth.entrypoints.http.token_request import decode_token_request
from macp_auth.entrypoints.request_context import current

PATH = "/tokens"
_NO_STORE = [(b"cache-control", b"no-store")]  # a token is a credential (RFC 6749, section 5.1)
_OK = 200
_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode


class TokenAnswer(msgspec.Struct, frozen=True):
    """The answer with a token, as on the wire."""

    token: str
    sender: str
    expires_in_seconds: int
    """``exp`` minus ``iat`` of the token, always. ``iat`` is rounded down: it lives up to a second less."""


def token_route(mint: ASGIApp) -> HTTPRouteHandler:
    """Return the route whose requests ``mint`` answers."""

    @post(
        PATH,
        sync_to_thread=False,
        status_code=_OK,
        operation_id="mintToken",
        operation_class=openapi.MintOperation,
        summary="Mint a token for an agent",
        responses={
            _OK: openapi.answer(TokenAnswer, "The token"),
            **openapi.MINT_REFUSALS,
        },
    )
    def tokens() -> ASGIApp:
        return mint

    return tokens


Recorded = Callable[[MintEvent], Awaitable[None]]
"""Returns when a token is on record, or raises AuditUnavailable."""


def no_rules() -> None:
    """Return what never changes."""


def token_app(  # noqa: PLR0913 - all are needed
    minter: Minter,
    observers: Sequence[Observer],
    *,
    now: Callable[[], TimeInterval],
    caller_checks: Sequence[CallerCheck] = (),
    authenticate: Authenticate = anonymous,
    rules: Callable[[], object] = no_rules,
    recorded: Recorded | None = None,
) -> ASGIApp:
    """Return the application that mints, and notifies ``observers`` of each request before its answer.

    Args:
        minter: mints.
        observers: are notified.
        now: returns the time, or raises ClockStepped.
        caller_checks: refuse requests before their caller is known.
        authenticate: returns the caller.
        rules: returns what ``authenticate`` decides by, the same object as long as it does not change.
        recorded: is awaited before a token leaves; None for nothing to wait for.
    """

    async def mint_token(scope: Scope, receive: Receive, send: Send) -> None:
        request: TokenRequest | None = None
        caller: Caller | None = None
        try:
            for check_caller in caller_checks:
                check_caller(scope)
            rules_then = rules()
            caller = authenticate(scope)
            check_headers(scope["headers"])
            request = decode_token_request(await read_body(receive))
            if rules() is not rules_then:  # the credential may be revoked, and the caller's name another's
                caller = None
                caller = authenticate(scope)
            minted = await minter.mint(request, caller, now)
            event = _event(scope, caller, request, minted, None)
            if recorded is not None:
                await recorded(event)
        except Exception as error:
            _notify(observers, _event(scope, caller, request, None, error))
            raise
        _notify(observers, event)
        claims = minted.claims
        answer = TokenAnswer(minted.token, claims.sub, claims.exp - claims.iat)
        await send_json(send, _encode(answer), _NO_STORE)

    return mint_token


def _event(
    scope: Scope,
    caller: Caller | None,
    request: TokenRequest | None,
    minted: MintedToken | None,
    error: Exception | None,
) -> MintEvent:
    client = scope["client"]
    return MintEvent(
        at=time.time(),
        client=client[0] if client else None,
        request_id=current.get().id,
        request=request,
        caller=caller,
        grant=getattr(error, "grant", None) if minted is None else minted.grant,
        minted=minted,
        status=_OK if error is None else status_of(error),
        reason=None if error is None else reason_word(error),
    )


def _notify(observers: Iterable[Observer], event: MintEvent) -> None:
    for observe in observers:
        try:
            observe(event)
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets the answer
            _log.exception("an observer of mint events failed")
