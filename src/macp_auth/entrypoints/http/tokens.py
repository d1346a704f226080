"""``POST /tokens``."""

from __future__ import annotations

import time

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send

from macp_auth.domain.minting import Minter
from macp_auth.entrypoints.http.body import check_headers, read_body
from macp_auth.entrypoints.http.responses import send_json
from macp_auth.entrypoints.http.token_request import decode_token_request

PATH = "/tokens"
_NO_STORE = [(b"cache-control", b"no-store")]  # a token is a credential (RFC 6749, section 5.1)
_encode = msgspec.json.Encoder().encode


def token_app(minter: Minter) -> ASGIApp:
    """Return the application that mints."""

    async def mint_token(scope: Scope, receive: Receive, send: Send) -> None:
        check_headers(scope["headers"])
        request = decode_token_request(await read_body(receive))
        minted = await minter.mint(request, time.time())
        await send_json(send, _encode(minted), _NO_STORE)

    return mint_token
