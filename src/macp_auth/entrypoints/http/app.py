"""The application: Litestar's router, behind exact paths."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Struct

from macp_auth.application.readiness import Readiness
from macp_auth.entrypoints.http import discovery, jwks, openapi, probes, tokens
from macp_auth.entrypoints.http.errors import answering_errors, error_response
from macp_auth.entrypoints.http.exact_paths import ExactPaths
from macp_auth.entrypoints.http.request_ids import with_request_id

Lifetime = Callable[[], AbstractAsyncContextManager[None]]
"""Starts a part of the service, and stops it at the end of the context."""


MAIN, KEYS = "main", "jwks"
"""The names of the listeners: for everything, and for the keys only."""
_OF_KEYS = (jwks.PATH, discovery.PATH, probes.HEALTH_PATH, probes.READY_PATH, probes.KEYS_READY_PATH)


class Applications(Struct, frozen=True):
    """What the listeners of a worker serve."""

    service: ASGIApp
    """Everything; its lifespan is that of both."""
    keys: ASGIApp
    """The keys, where to find them, and the probes."""


def create_apps(  # noqa: PLR0913 - all that is served
    mint: ASGIApp,
    publish: Mapping[str, ASGIApp],
    readiness: Readiness,
    lifetimes: Iterable[Lifetime],
    *,
    more_routes: Iterable[HTTPRouteHandler] = (),
    documented: bool = False,
) -> Applications:
    """Return the applications.

    Args:
        mint: answers ``POST /tokens``.
        publish: answers with the keys, by the name of the listener.
        readiness: answers ``/readyz`` and ``/readyz/keys``.
        lifetimes: are started in this order before the first request, and stopped in reverse after the last.
        more_routes: are served, too.
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
        jwks.jwks_route(publish[MAIN]),
        probes.health_route,
        probes.ready_route(readiness),
        probes.keys_ready_route(readiness),
        *more_routes,
        *([openapi.document_route] if documented else []),
    ]
    app = _Router(
        routes,
        lifespan=[running],
        exception_handlers={Exception: error_response},
        openapi_config=openapi.CONFIG if documented else None,
        logging_config=None,
    )
    methods = {path: _methods(route) for route in routes for path in route.paths}
    routed = _head_as_get(app)
    # Around Litestar's dispatch: docs/adr/0011 has the reason.
    direct = {tokens.PATH: answering_errors(mint), jwks.PATH: answering_errors(publish[MAIN])}
    of_keys = {path: methods[path] for path in _OF_KEYS if path in methods}
    direct_keys = {jwks.PATH: answering_errors(publish[KEYS])}
    return Applications(
        service=with_request_id(ExactPaths(routed, methods, direct)),
        keys=with_request_id(ExactPaths(routed, of_keys, direct_keys)),
    )


class _Router(Litestar):
    """Litestar without its plugins for pydantic, attrs and OpenTelemetry.

    It loads each where the package is installed, and has no setting against that: 0.1 s of CPU at the start.
    """

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]

    @staticmethod
    def _patch_opentelemetry_middleware(config: AppConfig) -> AppConfig:
        return config


def _head_as_get(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with HEAD as GET; the protocol sends no body (RFC 9110, section 9.3.2)."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return answering


def _methods(route: HTTPRouteHandler) -> Sequence[str]:
    return ["GET", "HEAD"] if "GET" in route.http_methods else sorted(route.http_methods)
