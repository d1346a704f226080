"""One spelling of each path, and the methods of each.

Litestar's router accepts a trailing slash and an encoded letter. A request in such a spelling could pass a
proxy rule that was written for the documented path. So each request is compared with the documented paths
before it is dispatched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from macp_auth.entrypoints.http.errors import HTTPRefusal, send_error
from macp_auth.entrypoints.http.responses import send_json


class ExactPaths:
    """Passes a request on only if its raw path is one of ``methods``, with one of the path's methods.

    Args:
        app: answers the requests, and runs the lifespan.
        methods: the methods of each path.
        direct: answers the requests of some paths in the place of ``app``.
    """

    def __init__(
        self,
        app: ASGIApp,
        methods: Mapping[str, Sequence[str]],
        direct: Mapping[str, ASGIApp] | None = None,
    ) -> None:
        self._app = app
        apps = direct or {}
        self._paths = {path.encode(): (names, apps.get(path, app)) for path, names in methods.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's lifespan."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
        elif (found := self._paths.get(scope["raw_path"])) is None:
            await send_error(HTTPRefusal(404, "not found"), scope, receive, send)
        elif scope["method"] in found[0]:
            await found[1](scope, receive, send)
        else:
            await _other_method(found[0], scope, receive, send)


async def _other_method(methods: Sequence[str], scope: HTTPScope, receive: Receive, send: Send) -> None:
    allow = ", ".join(methods)
    if scope["method"] == "OPTIONS":
        await send_json(send, msgspec.json.encode({"allow": methods}), [(b"allow", allow.encode())])
    else:
        refusal = HTTPRefusal(405, "method not allowed", {"Allow": allow})
        await send_error(refusal, scope, receive, send)
