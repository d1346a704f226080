"""Exact routes: a path has one spelling, and each has its methods.

A router that forgives (a trailing slash, upper case, an encoded letter) lets a request past a proxy
rule that was written for the path as documented. So this stands in front of Litestar's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from macp_auth.entrypoints.http.errors import HTTPRefusal, send_error
from macp_auth.entrypoints.http.responses import send_json


class Route(msgspec.Struct, frozen=True):
    """What answers a path, and the methods that it answers."""

    app: ASGIApp
    methods: Sequence[str]


class ExactRoutes:
    """Gives a request to the route of its raw path, if that has its method, and answers it otherwise."""

    def __init__(self, routes: Mapping[str, Route], lifespan: ASGIApp) -> None:
        self._routes = {path.encode(): route for path, route in routes.items()}
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's lifespan."""
        if scope["type"] != ScopeType.HTTP:
            await self._lifespan(scope, receive, send)
            return
        route = self._routes.get(scope["raw_path"])
        if route is None:
            await send_error(HTTPRefusal(404, "not found"), scope, receive, send)
        elif scope["method"] in route.methods:
            await route.app(scope, receive, send)
        else:
            await _other_method(route.methods, scope, receive, send)


async def _other_method(methods: Sequence[str], scope: HTTPScope, receive: Receive, send: Send) -> None:
    allow = ", ".join(methods)
    if scope["method"] == "OPTIONS":
        await send_json(send, msgspec.json.encode({"allow": methods}), [(b"allow", allow.encode())])
    else:
        refusal = HTTPRefusal(405, "method not allowed", {"Allow": allow})
        await send_error(refusal, scope, receive, send)


def answering_errors(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with its errors answered, as Litestar would for a route of its own."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            await send_error(error, scope, receive, send)

    return answering
