"""``GET /.well-known/jwks.json``: from bytes in memory, never waiting for a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Struct

from macp_auth.application.key_ring import KeyRing
from macp_auth.entrypoints.http.errors import TRY_AGAIN, HTTPRefusal
from macp_auth.entrypoints.http.openapi import answer, refusal
from macp_auth.entrypoints.http.responses import send_json

PATH = "/.well-known/jwks.json"


class JWKSet(Struct, frozen=True):
    """A JWK Set (RFC 7517, section 5)."""

    keys: list[dict[str, Any]]


def jwks_route(publish: ASGIApp) -> HTTPRouteHandler:
    """Return the route whose requests ``publish`` answers."""

    @get(
        PATH,
        sync_to_thread=False,
        operation_id="jwks",
        summary="The public keys (RFC 7517)",
        responses={
            200: answer(JWKSet, "The keys"),
            304: answer(None, "Not changed since the ETag"),
            503: refusal("No keys were read yet"),
        },
    )
    def jwks() -> ASGIApp:
        return publish

    return jwks


def jwks_app(keys: KeyRing, max_age: int, answered: Callable[[int], None]) -> ASGIApp:
    """Return the application that publishes the keys.

    Args:
        keys: the keys.
        max_age: how long they may be cached, in seconds.
        answered: called with the status of each response; must return at once.
    """
    cache_control = f"public, max-age={max_age}".encode()

    async def publish(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        if (published := keys.active) is None:
            answered(503)
            raise HTTPRefusal(503, "no keys have been read yet; try again", TRY_AGAIN)
        headers = [(b"cache-control", cache_control), (b"etag", published.etag.encode())]
        if _matches(scope["headers"], published.etag.encode()):
            answered(304)
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            answered(200)
            await send_json(send, published.jwks, headers)

    return publish


def _matches(headers: Iterable[tuple[bytes, bytes]], etag: bytes) -> bool:
    """Whether ``If-None-Match`` names ``etag`` (RFC 9110, section 13.1.2: weak comparison)."""
    for name, value in headers:
        if name == b"if-none-match":
            tags = {tag.strip().removeprefix(b"W/") for tag in value.split(b",")}
            if b"*" in tags or etag in tags:
                return True
    return False
