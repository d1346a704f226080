"""What the guard counts, with a service that wastes: an access log adds 16 % to its own code for a token."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from tools.bench import mint_loop


def with_access_log(app: ASGIApp) -> ASGIApp:
    async def logged(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            agent = Request[Any, Any, Any](scope).headers.get("user-agent")
            msgspec.json.encode({"path": scope["path"], "agent": agent})
        await app(scope, receive, send)

    return logged


if __name__ == "__main__":
    mint_loop.main(with_access_log)
