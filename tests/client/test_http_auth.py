"""The token in requests of httpx, at a verifier that refuses what it is asked to refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from macp_auth_client import AsyncBearerAuth, AsyncTokenSource, BearerAuth, MintRefused, TokenSource
from tests.client.support import SCOPES, requests_for
from tests.support.fake_server import FakeServer, Reply, Request
from tools.support.bounded import bounded
from tools.support.service import Service


class Verifier(FakeServer):
    """Answers 401 to the tokens in ``refused``, or to all of them if that is None."""

    def __init__(self) -> None:
        self.refused: set[str] | None = set()
        super().__init__(self._judge)

    def _judge(self, request: Request) -> Reply:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        good = token and self.refused is not None and token not in self.refused
        return Reply(200 if good else 401, {})

    @property
    def seen(self) -> list[str]:
        return [request.headers.get("authorization", "").removeprefix("Bearer ") for request in self.requests]


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    with Verifier() as running:
        yield running


def _post(url: str, source: TokenSource | AsyncTokenSource, content: bytes = b"body") -> int:
    """The status, by the client that fits."""
    if isinstance(source, TokenSource):
        with httpx.Client(auth=BearerAuth(source), follow_redirects=True) as client:
            return client.post(url, content=content).status_code
    status = []

    @bounded
    async def post() -> None:
        async with httpx.AsyncClient(auth=AsyncBearerAuth(source), follow_redirects=True) as client:
            status.append((await client.post(url, content=content)).status_code)

    post()
    return status[0]


BOTH = pytest.mark.parametrize("kind", [TokenSource, AsyncTokenSource])


@BOTH
def test_a_refused_token_is_replaced_once(
    kind: type[TokenSource | AsyncTokenSource], service: Service, verifier: Verifier, sender: str
) -> None:
    """The same request, body and all, goes out again with a new token."""
    source = kind(service.url, sender, SCOPES)
    assert _post(verifier.url, source) == 200
    (first,) = verifier.seen
    verifier.refused = {first}
    assert _post(verifier.url, source) == 200
    _, again, second = verifier.seen
    assert again == first != second
    assert [request.body for request in verifier.requests] == [b"body"] * 3
    assert len(requests_for(service, sender)) == 2


@BOTH
def test_a_verifier_that_refuses_every_token(
    kind: type[TokenSource | AsyncTokenSource], service: Service, verifier: Verifier, sender: str
) -> None:
    """The caller gets its 401, after two requests."""
    verifier.refused = None
    assert _post(verifier.url, kind(service.url, sender, SCOPES)) == 401
    assert len(set(verifier.seen)) == len(verifier.seen) == 2


@BOTH
def test_a_body_that_can_be_sent_once(
    kind: type[TokenSource | AsyncTokenSource], service: Service, verifier: Verifier, sender: str
) -> None:
    """The 401 is the answer, and the next request has a new token."""
    source = kind(service.url, sender, SCOPES)
    verifier.refused = None
    headers = {"content-length": "4"}
    if isinstance(source, TokenSource):
        with httpx.Client(auth=BearerAuth(source)) as client:
            assert client.post(verifier.url, content=iter([b"body"]), headers=headers).status_code == 401
            verifier.refused = set()
            assert client.post(verifier.url).status_code == 200
    else:

        async def body() -> AsyncIterator[bytes]:
            yield b"body"

        @bounded
        async def scenario() -> None:
            async with httpx.AsyncClient(auth=AsyncBearerAuth(source)) as client:
                assert (await client.post(verifier.url, content=body(), headers=headers)).status_code == 401
                verifier.refused = set()
                assert (await client.post(verifier.url)).status_code == 200

        scenario()
    assert len(set(verifier.seen)) == len(verifier.seen) == 2


@BOTH
def test_a_redirect_to_another_host(
    kind: type[TokenSource | AsyncTokenSource], service: Service, verifier: Verifier, sender: str
) -> None:
    """It gets no token, and its 401 is no reason for a new one."""
    with FakeServer(lambda _: Reply(307, {}, {"location": verifier.url})) as first:
        source = kind(service.url, sender, SCOPES)
        assert _post(first.url, source) == 401
        assert _post(first.url, source) == 401
    assert verifier.seen == ["", ""]
    assert len(requests_for(service, sender)) == 1


@BOTH
def test_the_error_of_a_source_is_raised(
    kind: type[TokenSource | AsyncTokenSource], service: Service, verifier: Verifier
) -> None:
    """And nothing is sent."""
    with pytest.raises(MintRefused, match="sender is required"):
        _post(verifier.url, kind(service.url, " ", SCOPES))
    assert verifier.seen == []


def test_the_other_kind_of_client_is_refused(service: Service, verifier: Verifier) -> None:
    """Nothing goes out without a token."""
    asynchronous = AsyncBearerAuth(AsyncTokenSource(service.url, "a", SCOPES))
    with httpx.Client(auth=asynchronous) as client, pytest.raises(TypeError, match="use BearerAuth with"):
        client.get(verifier.url)

    @bounded
    async def scenario() -> None:
        async with httpx.AsyncClient(auth=BearerAuth(TokenSource(service.url, "a", SCOPES))) as client:
            with pytest.raises(TypeError, match="use AsyncBearerAuth with"):
                await client.get(verifier.url)

    scenario()
    assert verifier.seen == []
