"""Exact routes: a path has one spelling, and each has its methods.

A router that forgives (a trailing slash, upper case, an encoded letter) lets a request past a proxy
rule that was written for the path as documented. So this stands in front of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from litestar import Request
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from macp_auth.entrypoints.http.errors import HTTPRefusal, error_response
from macp_auth.entrypoints.http.responses import send_json


class ExactRoutes:
    """Lets a request through to ``app`` if its raw path and method are in ``methods``, and answers others."""

    def __init__(self, app: ASGIApp, methods: Mapping[str, Sequence[str]]) -> None:
        self._app = app
        self._methods = {path.encode(): tuple(allowed) for path, allowed in methods.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's lifespan."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        methods = self._methods.get(scope["raw_path"])
        if methods is not None and scope["method"] in methods:
            await self._app(scope, receive, send)
        elif methods is not None and scope["method"] == "OPTIONS":
            body = msgspec.json.encode({"allow": methods})
            await send_json(send, body, [(b"allow", ", ".join(methods).encode())])
        else:
            refusal = _not_found() if methods is None else _not_allowed(methods)
            request = Request[Any, Any, Any](scope)
            response = error_response(request, refusal).to_asgi_response(app=None, request=request)
            await response(scope, receive, send)


def _not_found() -> HTTPRefusal:
    return HTTPRefusal(404, "not found")


def _not_allowed(methods: Sequence[str]) -> HTTPRefusal:
    return HTTPRefusal(405, "method not allowed", {"Allow": ", ".join(methods)})
