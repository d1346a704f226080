"""The probes of an orchestrator, answered from memory however often they are asked.

``GET /healthz``: the process serves. It says nothing about a backend, on purpose: a liveness probe that
fails with its backend restarts every replica at the worst moment. ``GET /readyz``: this process can mint.
"""

from __future__ import annotations

import msgspec
from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from macp_auth.application.readiness import Readiness
from macp_auth.entrypoints.http.responses import send_json

HEALTH_PATH, READY_PATH = "/healthz", "/readyz"
_NO_STORE = [(b"cache-control", b"no-store")]


@asgi(HEALTH_PATH, copy_scope=False)
async def health_route(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
    """Answer that the process serves."""
    await send_json(send, b'{"ok":true}')


def ready_route(readiness: Readiness) -> ASGIRouteHandler:
    """Return the route that answers what ``readiness`` found last."""

    @asgi(READY_PATH, copy_scope=False)
    async def ready(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        if (reason := readiness.reason) is None:
            await send_json(send, b'{"ready":true}', _NO_STORE)
        else:
            body = msgspec.json.encode({"ready": False, "reason": reason})
            await send_json(send, body, _NO_STORE, status=503)

    return ready
