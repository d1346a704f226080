"""The least that a Litestar route does: it decodes the body of a request for a token, and says it back."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, post
from litestar.params import JSONBody
from msgspec import Struct


class TokenRequest(Struct):
    """What ``POST /tokens`` is sent."""

    sender: str
    scopes: dict[str, Any] | None = None
    ttl_seconds: float | None = None


@post("/tokens", status_code=200)
async def echo(data: JSONBody[TokenRequest]) -> TokenRequest:
    return data


app = Litestar([echo], openapi_config=None, logging_config=None)
