"""The application: Litestar's router, behind exact paths."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from macp_auth.application.readiness import Readiness
from macp_auth.entrypoints.http import jwks, openapi, probes, tokens
from macp_auth.entrypoints.http.errors import answering_errors, error_response
from macp_auth.entrypoints.http.exact_paths import ExactPaths
from macp_auth.entrypoints.http.request_ids import with_request_id

Lifetime = Callable[[], AbstractAsyncContextManager[None]]
"""Starts a part of the service, and stops it at the end of the context."""


def create_app(
    mint: ASGIApp,
    publish: ASGIApp,
    readiness: Readiness,
    lifetimes: Iterable[Lifetime],
    *,
    documented: bool = False,
) -> ASGIApp:
    """Return the application.

    Args:
        mint: answers ``POST /tokens``.
        publish: answers with the keys.
        readiness: answers ``/readyz``.
        lifetimes: are started in this order before the first request, and stopped in reverse after the last.
        documented: whether ``/openapi.json`` is served.
    """

    @asynccontextmanager
    async def running(_app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for lifetime in lifetimes:
                await stack.enter_async_context(lifetime())
            yield

    routes = [
        tokens.token_route(mint),
        jwks.jwks_route(publish),
        probes.health_route,
        probes.ready_route(readiness),
        *([openapi.document_route] if documented else []),
    ]
    app = Litestar(
        routes,
        lifespan=[running],
        exception_handlers={Exception: error_response},
        openapi_config=openapi.CONFIG if documented else None,
        logging_config=None,
    )
    methods = {path: _methods(route) for route in routes for path in route.paths}
    # Around Litestar's dispatch: docs/adr/0011 has the reason.
    direct = {tokens.PATH: answering_errors(mint), jwks.PATH: answering_errors(publish)}
    return with_request_id(ExactPaths(_head_as_get(app), methods, direct))


def _head_as_get(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with HEAD as GET; the protocol sends no body (RFC 9110, section 9.3.2)."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return answering


def _methods(route: HTTPRouteHandler) -> Sequence[str]:
    return ["GET", "HEAD"] if "GET" in route.http_methods else sorted(route.http_methods)
