"""``GET /.well-known/jwks.json``: from bytes in memory, never waiting for a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from macp_auth.application.key_ring import KeyRing
from macp_auth.entrypoints.http.responses import send_json

PATH = "/.well-known/jwks.json"


def jwks_route(keys: KeyRing, max_age: int, answered: Callable[[int], None]) -> ASGIRouteHandler:
    """Return the route that publishes the keys.

    Args:
        keys: the keys.
        max_age: how long they may be cached, in seconds.
        answered: called with the status of each response; must return at once.
    """
    cache_control = f"public, max-age={max_age}".encode()

    @asgi(PATH, copy_scope=False)
    async def jwks(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        published = keys.keys
        headers = [(b"cache-control", cache_control), (b"etag", published.etag.encode())]
        if _matches(scope["headers"], published.etag.encode()):
            answered(304)
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            answered(200)
            await send_json(send, published.jwks, headers)

    return jwks


def _matches(headers: Iterable[tuple[bytes, bytes]], etag: bytes) -> bool:
    """Whether ``If-None-Match`` names ``etag`` (RFC 9110, section 13.1.2: weak comparison)."""
    for name, value in headers:
        if name == b"if-none-match":
            tags = {tag.strip().removeprefix(b"W/") for tag in value.split(b",")}
            if b"*" in tags or etag in tags:
                return True
    return False
