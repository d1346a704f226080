"""A JSON answer in two ASGI messages."""

from __future__ import annotations

from litestar.types import Send

RawHeaders = list[tuple[bytes, bytes]]


async def send_json(send: Send, body: bytes, headers: RawHeaders | None = None, status: int = 200) -> None:
    """Send ``body``, which is JSON already."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                *(headers or ()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})
