"""Errors to responses, in one place: the only module that knows both an error and its status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, Scope, Send

from macp_auth.domain.errors import (
    AuditUnavailable,
    BadCredential,
    CallerRefused,
    CallersUnavailable,
    ClockStepped,
    InvalidRequest,
    MACPAuthError,
    RateLimited,
    SignerError,
    Unauthenticated,
    reason_of,
)

INTERNAL_ERROR = 500
TRY_AGAIN = {"Retry-After": "1", "Connection": "close"}
"""Headers of a 503: on another connection, the client may reach a replica that can."""
REASONS = {400: "cut-off", 403: "no-client-certificate", 413: "too-large", 415: "unsupported-media-type"}
"""Why a request is refused before it is read, by the status."""
BROWSER = "browser"
"""Why a request of a browser is refused; its status is that of a caller without a certificate."""
_log = structlog.get_logger()


class ErrorAnswer(msgspec.Struct, frozen=True):
    """The body of each answer that is not a success."""

    error: str


class HTTPRefusal(MACPAuthError):
    """A request that is refused for its HTTP, before the domain sees it."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


class BrowserRefusal(HTTPRefusal):
    """A request that a browser sent, or that may come from a page in one."""

    def __init__(self, message: str) -> None:
        super().__init__(403, message)


def status_of(error: Exception) -> int:
    """Return the status of the answer to ``error``."""
    match error:
        case HTTPRefusal() | InvalidRequest() | CallerRefused():
            return _refusal(error)[0]
        case SignerError() | ClockStepped() | CallersUnavailable() | AuditUnavailable():
            return 503
        case HTTPException() if error.status_code < INTERNAL_ERROR:
            return error.status_code
        case _:
            return INTERNAL_ERROR


def reason_word(error: Exception) -> str:
    """Return why a request got ``error``, in one word of lower case and hyphens, out of few.

    Only a signer of another package may bring words of its own.
    """
    match error:
        case BrowserRefusal():
            return BROWSER
        case HTTPRefusal():
            return REASONS.get(error.status, "refused")
        case InvalidRequest() | CallerRefused() | ClockStepped() | CallersUnavailable() | AuditUnavailable():
            return error.reason
        case SignerError():
            return reason_of(error)
        case _:
            return "internal-error"


def error_response(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Return the answer to ``error``; also Litestar's handler for whatever a route raises."""
    status = status_of(error)
    match error:
        case HTTPRefusal() | InvalidRequest() | CallerRefused():
            return _response(status, str(error), _refusal(error)[1])
        case SignerError():
            # The signer's own words may name hosts and policies: for the log, not for the caller.
            _log.error("no signature", reason=type(error).__name__, detail=str(error))
            return _unavailable("tokens can't be signed now; try again")
        case ClockStepped() | CallersUnavailable() | AuditUnavailable():
            return _paused(error)
        case HTTPException() if status < INTERNAL_ERROR:
            return _response(status, "bad request", error.headers)
        case _:
            _log.error("unexpected error", exc_info=error)
            return _response(status, "internal error")


def answering_errors(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with its errors answered, for an application outside of Litestar's dispatch."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the caller gets an answer to any error
            await send_error(error, scope, receive, send)

    return answering


async def send_error(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer ``error`` outside of Litestar."""
    request = Request[Any, Any, Any](scope)
    response = error_response(request, error).to_asgi_response(app=None, request=request)
    await response(scope, receive, send)


def _refusal(error: HTTPRefusal | InvalidRequest | CallerRefused) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of the answer to a caller's error."""
    match error:
        case HTTPRefusal():
            return error.status, error.headers
        case InvalidRequest():
            return 400, {}
        case BadCredential():
            return 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}  # RFC 6750, section 3.1
        case Unauthenticated():
            return 401, {"WWW-Authenticate": "Bearer"}  # must be there (RFC 9110, section 15.5.2)
        case RateLimited():
            return 429, {"Retry-After": str(error.retry_after)}
        case _:
            return 403, {}


def _paused(error: ClockStepped | CallersUnavailable | AuditUnavailable) -> Response[bytes]:
    # It is logged when it begins, and not for each request.
    match error:
        case ClockStepped():
            return _unavailable("the clock is not trusted now; try again")
        case CallersUnavailable():
            return _unavailable("callers can't be checked now; try again")
        case AuditUnavailable():
            return _unavailable("the audit log can't be written now; try again")


def _unavailable(message: str) -> Response[bytes]:
    return _response(503, message, TRY_AGAIN)


def _response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    body = msgspec.json.encode(ErrorAnswer(message))
    return Response(body, status_code=status, headers=headers, media_type="application/json")
