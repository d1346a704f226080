"""What the guard counts: a token, a bare signature, and a bare Litestar route.

Each is an application that is given the same request in this process, without a socket, and between
the same two marks.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from tools.bench import echo
from tools.bench.service import MINT_REQUEST
from tools.bench.signature import SIGNING_INPUT_BYTES
from tools.support.asgi import InProcess

EXCHANGES = 100  # that are counted of each; twice as many change the result by 0.2 %
WARM_UP = 50  # CPython specialises code that has run some times (PEP 659)
MARK = "getppid"
"""The function of the C library that is called at each mark, and by nothing else."""
_BODY = MINT_REQUEST.encode()
_SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/tokens",
    "raw_path": b"/tokens",
    "query_string": b"",
    "root_path": "",
    "headers": [
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(_BODY)),
    ],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 2),
    "state": {},
}


def main(wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app) -> None:
    """Run what is counted: the service, in whatever ``wrap`` puts around it, the signature, the route.

    ES256 only: what is not the signature is the same code for RS256, whose signature takes much longer.
    """
    with tempfile.TemporaryDirectory() as directory:
        settings = {"MACP_AUTH_SIGNING_ALG": "ES256", "MACP_AUTH_AUDIT_LOG": f"{directory}/audit.log"}
        with _Service(settings) as service:
            for app in (wrap(service.app), _signature(), echo.app):
                service.run(_between_marks(app))


class _Service(InProcess):
    @property
    def app(self) -> ASGIApp:
        app: ASGIApp = self._app
        return app

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._loop.run_until_complete(coroutine)


async def _between_marks(app: ASGIApp) -> None:
    await _exchange(app, WARM_UP)
    gc.collect()  # else it is chance whose garbage is counted here
    os.getppid()
    await _exchange(app, EXCHANGES)
    os.getppid()


async def _exchange(app: ASGIApp, times: int) -> None:
    for _ in range(times):
        scope: Any = _SCOPE.copy()
        await app(scope, _receive, _send)


async def _receive() -> Any:
    return {"type": "http.request", "body": _BODY, "more_body": False}


async def _send(message: Message) -> None:
    if message["type"] == "http.response.start" and message["status"] != 200:
        raise RuntimeError(f"a request that is counted was answered with {message['status']}")


def _signature() -> ASGIApp:
    """Return an application that takes a request, signs once, and answers."""
    key, ecdsa = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(hashes.SHA256())
    signing_input = bytes(SIGNING_INPUT_BYTES)

    async def sign(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        key.sign(signing_input, ecdsa)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return sign


if __name__ == "__main__":
    main()
