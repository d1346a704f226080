"""The application in this process, driven message by message: for tests by the ten thousand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self

from macp_auth.adapters.audit.standard_output import StandardOutput
from macp_auth.entrypoints.composition import build_service
from macp_auth.entrypoints.plan import plan_service
from tools.support.wire import Answer


class InProcess:
    """The service's application with its lifespan running. Use as a context manager."""

    def __init__(self, env: Mapping[str, str]) -> None:
        quiet = {"MACP_AUTH_AUDIT_LOG": "off"}  # standard output is the test run's
        self._app: Any = build_service(plan_service({**quiet, **env}), StandardOutput(1)).service
        self._loop = asyncio.new_event_loop()
        self._to_lifespan: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._from_lifespan: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    def __enter__(self) -> Self:
        lifespan = self._app(
            {"type": "lifespan", "state": {}}, self._to_lifespan.get, self._from_lifespan.put
        )
        self._lifespan = self._loop.create_task(lifespan)
        assert self._lifespan_answers("lifespan.startup") == "lifespan.startup.complete"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._lifespan_answers("lifespan.shutdown") == "lifespan.shutdown.complete"
        self._loop.run_until_complete(self._lifespan)
        self._loop.close()

    def _lifespan_answers(self, message: str) -> str:
        async def ask() -> str:
            await self._to_lifespan.put({"type": message})
            return (await asyncio.wait_for(self._from_lifespan.get(), 5))["type"]

        return self._loop.run_until_complete(ask())

    def request(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        chunks: Sequence[bytes] = (b"",),
        extensions: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Send one request, its body in ``chunks``; ``extensions`` are what the protocol adds."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "state": {},
            "extensions": dict(extensions or {}),
        }
        incoming = [
            {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
            for number, chunk in enumerate(chunks, 1)
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return incoming.pop(0) if incoming else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        self._loop.run_until_complete(self._app(scope, receive, send))
        start, *bodies = sent
        return Answer(
            start["status"],
            {name.decode(): value.decode() for name, value in start["headers"]},
            b"".join(message.get("body", b"") for message in bodies),
        )

    def post(self, body: bytes, content_type: str = "application/json") -> Answer:
        """Ask for a token with ``body``."""
        headers = [("content-type", content_type), ("content-length", str(len(body)))]
        return self.request("POST", "/tokens", headers, [body])
