"""``GET /metrics`` and ``GET /status``, on their own port and thread, with the service's protocol and limits.

A slow client of this port does not affect requests for tokens.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import uvicorn
from litestar.types import ASGIApp, Receive, Scope, Send
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from macp_auth.domain.service_state import ServiceState
from macp_auth.entrypoints.http import status_page
from macp_auth.entrypoints.http.caller_checks import CallerCheck
from macp_auth.entrypoints.http.errors import answering_errors
from macp_auth.entrypoints.http.exact_paths import ExactPaths
from macp_auth.entrypoints.http.responses import RawHeaders
from macp_auth.entrypoints.server.connections import Connections
from macp_auth.entrypoints.server.descriptors import METRICS_CONNECTIONS
from macp_auth.entrypoints.server.protocol import StrictHTTPProtocol

PATH = "/metrics"
MAX_AGE_SECONDS = 3600
STOP_SECONDS = 1
"""With the 8 s that the service's own stop may take, less than 10 s."""


def metrics_app(
    collector: Collector, state: Callable[[], ServiceState], checks: Sequence[CallerCheck]
) -> ASGIApp:
    """Return an app that answers with the metrics of ``collector``, and with ``state`` as a page.

    Args:
        collector: the metrics.
        state: returns the state of the service.
        checks: each raises to refuse a request.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)

    async def metrics(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
        encode, content_type = _format_for(accepted.decode("latin-1"))
        body = encode(registry)
        await _send(send, body, [(b"content-type", content_type.encode())])

    async def status(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        await _send(send, status_page.render(state()), status_page.HEADERS)

    methods = {PATH: ["GET", "HEAD"], status_page.PATH: ["GET", "HEAD"]}
    return ExactPaths(_checked(metrics, checks), methods, {status_page.PATH: _checked(status, checks)})


def _checked(app: ASGIApp, checks: Sequence[CallerCheck]) -> ASGIApp:
    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        for check in checks:
            check(scope)
        await app(scope, receive, send)

    return answering_errors(checked)


async def _send(send: Send, body: bytes, headers: RawHeaders) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _format_for(accepted: str) -> tuple[Callable[[Collector], bytes], str]:
    """Return the encoder of the requested format and its media type; the default if it is malformed."""
    try:
        return choose_encoder(accepted)
    except Exception:  # noqa: BLE001 - a malformed version raises several kinds
        return choose_encoder("")


@contextmanager
def serving(listener: socket.socket, app: ASGIApp) -> Iterator[None]:
    """Serve ``app`` on ``listener`` for as long as the context lasts."""
    connections = Connections("metrics", METRICS_CONNECTIONS, MAX_AGE_SECONDS)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=partial(StrictHTTPProtocol, connections=connections),  # type: ignore[arg-type]  # is called only
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )
    # A daemon, so that a hanging scrape does not prevent the service from exiting.
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True, name="metrics")
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(STOP_SECONDS + 1)
