"""``GET /healthz``: the process serves.

It says nothing about a backend, on purpose: a liveness probe that fails with its backend restarts
every replica at the worst moment.
"""

from __future__ import annotations

from litestar import asgi
from litestar.types import Receive, Scope, Send

from macp_auth.entrypoints.http.responses import send_json

PATH = "/healthz"


@asgi(PATH, copy_scope=False)
async def health_route(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
    """Answer that the process serves."""
    await send_json(send, b'{"ok":true}')
