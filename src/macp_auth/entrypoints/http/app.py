"""The application: Litestar, behind exact routes.

The handlers are plain ASGI, and ``POST /tokens`` goes around Litestar's dispatch: docs/adr/0011 has the
reasons and what was measured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from litestar import Litestar
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp

from macp_auth.application.readiness import Readiness
from macp_auth.entrypoints.http import jwks, probes, tokens
from macp_auth.entrypoints.http.errors import error_response
from macp_auth.entrypoints.http.request_ids import with_request_id
from macp_auth.entrypoints.http.routing import ExactRoutes, Route, answering_errors

Lifetime = Callable[[], AbstractAsyncContextManager[None]]
"""Starts a part of the service, and stops it at the end of the context."""


def create_app(
    mint: ASGIApp, publish: ASGIRouteHandler, readiness: Readiness, lifetimes: Iterable[Lifetime]
) -> ASGIApp:
    """Return the application.

    Args:
        mint: what answers ``POST /tokens``; its errors are answered here.
        publish: what answers with the keys.
        readiness: what ``/readyz`` answers.
        lifetimes: are started in this order before the first request, and stopped in reverse after the last.
    """

    @asynccontextmanager
    async def running(_app: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for lifetime in lifetimes:
                await stack.enter_async_context(lifetime())
            yield

    app = Litestar(
        [publish, probes.health_route, probes.ready_route(readiness)],
        lifespan=[running],
        exception_handlers={Exception: error_response},
        openapi_config=None,
        logging_config=None,
    )
    routes = {
        tokens.PATH: Route(answering_errors(mint), ["POST"]),
        jwks.PATH: Route(app, ["GET", "HEAD"]),
        probes.HEALTH_PATH: Route(app, ["GET", "HEAD"]),
        probes.READY_PATH: Route(app, ["GET", "HEAD"]),
    }
    return with_request_id(ExactRoutes(routes, lifespan=app))
