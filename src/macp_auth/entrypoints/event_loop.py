"""The event loop of a worker: uvloop, with bounds on what a client may take for TLS.

uvicorn hands on no such bounds, and the loop's own are a minute for a handshake and half of one
for a close, in which a stop would wait.
"""

from __future__ import annotations

from typing import Any

import uvloop

from macp_auth.entrypoints.protocol import LINGER_SECONDS, RECEIVE_SECONDS

HANDSHAKE_SECONDS = RECEIVE_SECONDS
CLOSE_SECONDS = LINGER_SECONDS


class EventLoop(uvloop.Loop):
    """Cuts a connection whose handshake takes longer, or whose client does not agree to a close."""

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        """Listen, as any loop does."""
        if kwargs.get("ssl") is not None:
            kwargs |= {"ssl_handshake_timeout": HANDSHAKE_SECONDS, "ssl_shutdown_timeout": CLOSE_SECONDS}
        return await super().create_server(*args, **kwargs)
