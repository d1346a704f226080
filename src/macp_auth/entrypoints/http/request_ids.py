"""``x-request-id``: every request has an id, and every answer carries it."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Iterable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from macp_auth.entrypoints.request_context import RequestContext, current

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_SEVERAL = b""  # ambiguous; no pattern accepts this value
# https://www.w3.org/TR/trace-context/#traceparent-header: version ff and ids of zeros are invalid.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def with_request_id(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with an id for each request: the caller's if it is well formed, else a new one."""

    async def app_with_id(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        request = _context(scope["headers"])
        current.set(request)
        header = (HEADER, request.id.encode())

        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            return send(message)

        await app(scope, receive, send_with_id)

    return app_with_id


def _context(headers: Iterable[tuple[bytes, bytes]]) -> RequestContext:
    request_id = trace = None
    for name, value in headers:
        if name == HEADER:
            request_id = value if request_id is None else _SEVERAL
        elif name == b"traceparent":
            trace = value if trace is None else _SEVERAL
    return RequestContext(
        _new_id() if request_id is None or not _SANE.fullmatch(request_id) else request_id.decode(),
        None if trace is None or not _TRACEPARENT.fullmatch(trace) else trace.decode(),
    )


def _new_id() -> str:
    return random.getrandbits(128).to_bytes(16).hex()  # a name, not a secret: no need for os.urandom
