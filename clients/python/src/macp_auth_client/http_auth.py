"""The token in requests of httpx: ``httpx.Client(auth=BearerAuth(source))``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import httpx

from macp_auth_client.sources import AsyncTokenSource, TokenSource


class BearerAuth(httpx.Auth):
    """Sends the token of a source as ``Authorization: Bearer``, with httpx.Client.

    After a 401, it invalidates the token and sends the request once more with a new one. A request whose body
    can't be sent twice (a generator, a file) is not repeated. Errors of the source are raised as they are.
    """

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request, and once more after a 401."""
        token = self._source.token()
        response = yield _with_token(request, token)
        if _refuses(response, token):
            self._source.invalidate(token)
            if _repeatable(request):
                yield _with_token(request, self._source.token())

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:  # noqa: ARG002
        """Refuse: this would block the event loop."""
        raise TypeError("BearerAuth is for httpx.Client; use AsyncBearerAuth with httpx.AsyncClient")
        yield  # makes it a generator


class AsyncBearerAuth(httpx.Auth):
    """Does as :class:`BearerAuth` does, with httpx.AsyncClient."""

    def __init__(self, source: AsyncTokenSource) -> None:
        self._source = source

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send the request, and once more after a 401."""
        token = await self._source.token()
        response = yield _with_token(request, token)
        if _refuses(response, token):
            self._source.invalidate(token)
            if _repeatable(request):
                yield _with_token(request, await self._source.token())

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:  # noqa: ARG002
        """Refuse: the source needs an event loop."""
        raise TypeError("AsyncBearerAuth is for httpx.AsyncClient; use BearerAuth with httpx.Client")
        yield  # makes it a generator


def _with_token(request: httpx.Request, token: str) -> httpx.Request:
    request.headers["authorization"] = f"Bearer {token}"
    return request


def _refuses(response: httpx.Response, token: str) -> bool:
    # httpx removes the header when it follows a redirect to another host, whose 401 then says nothing.
    sent = response.request.headers.get("authorization")
    return response.status_code == httpx.codes.UNAUTHORIZED and sent == f"Bearer {token}"


def _repeatable(request: httpx.Request) -> bool:
    return isinstance(request.stream, httpx.ByteStream)
