"""``GET /readyz``: this process can mint. From memory, however often it is asked."""

from __future__ import annotations

import msgspec
from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from macp_auth.application.readiness import Readiness
from macp_auth.entrypoints.http.responses import send_json

PATH = "/readyz"
_NO_STORE = [(b"cache-control", b"no-store")]


def ready_route(readiness: Readiness) -> ASGIRouteHandler:
    """Return the route that answers what ``readiness`` found last."""

    @asgi(PATH, copy_scope=False)
    async def ready(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        if (reason := readiness.reason) is None:
            await send_json(send, b'{"ready":true}', _NO_STORE)
        else:
            body = msgspec.json.encode({"ready": False, "reason": reason})
            await send_json(send, body, _NO_STORE, status=503)

    return ready
