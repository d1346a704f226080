"""Errors of the connection to Vault are errors of the domain, and name the remedy."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any, NoReturn

import aiohttp
import pytest
from aiohttp.http_exceptions import BadStatusLine

from macp_auth.adapters.signers.vault_transit.connection import Connection
from macp_auth.adapters.signers.vault_transit.settings import VaultSettings
from macp_auth.adapters.signers.vault_transit.transport import call
from macp_auth.domain.errors import SignerError, SignerMisconfigured, SignerUnavailable
from tests.support.fake_server import FakeServer, Reply


def refusal_of(addr: str, *, token: str = "") -> SignerError:
    """What asking for a token's own data raises."""
    made = VaultSettings(key="macp", addr=addr)

    async def ask() -> None:
        connection = Connection(made)
        try:
            await call(connection.client(token).auth.token.lookup_self)
        finally:
            await connection.aclose()

    with pytest.raises(SignerError) as raised:
        asyncio.run(ask())
    return raised.value


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A free port on loopback."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def test_a_refused_connection_has_the_system_s_words(closed_port: int) -> None:
    """And neither the HTTP client's nor those of TLS, which is not spoken."""
    refusal = refusal_of(f"http://127.0.0.1:{closed_port}")
    assert str(refusal) == f"Vault can't be reached: {os.strerror(errno.ECONNREFUSED)}"
    assert refusal.reason == "unreachable"


def test_a_name_that_is_not_known_has_the_resolver_s_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers are not those of the system's errors."""

    def unknown(*_: Any, **__: Any) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert str(refusal_of("http://vault.invalid:8200")) == "Vault can't be reached: Name or service not known"


def test_a_server_without_tls_is_not_blamed_for_its_certificate() -> None:
    """It has none: the address is to be fixed."""
    with FakeServer(lambda _: Reply(200, {})) as server:
        refusal = refusal_of(server.url.replace("http://", "https://"))
    assert isinstance(refusal, SignerUnavailable)
    assert refusal.reason == "no-tls"
    assert "http://" in str(refusal)
    assert "certificate is not accepted" not in str(refusal)


@pytest.mark.parametrize("addr", ["http://vault..example:1", "http://127.0.0.1:99999", "http://[::1"])
def test_an_address_that_is_none(addr: str) -> None:
    """The start refuses it; what might pass there is still an error of ours."""
    assert isinstance(refusal_of(addr), SignerMisconfigured)


def test_a_token_that_can_not_be_sent() -> None:
    """The same; and it is not shown."""
    with FakeServer(lambda _: Reply(200, {})) as server:
        refusal = refusal_of(server.url, token="s3cret\n")
        assert server.requests == []
    assert isinstance(refusal, SignerMisconfigured)
    assert "s3cret" not in str(refusal)


def test_connections_that_are_closed() -> None:
    """A request during the shutdown gets the reason."""
    settings = VaultSettings(key="macp", addr="http://127.0.0.1:9")

    async def ask() -> None:
        connection = Connection(settings)
        client = connection.client("t")
        await connection.aclose()
        await call(client.auth.token.lookup_self)

    with pytest.raises(SignerUnavailable) as raised:
        asyncio.run(ask())
    assert raised.value.reason == "stopping"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EMFILE, "s3cret"), "unreachable"),
        (OSError("no number"), "unreachable"),
        (BadStatusLine("s3cret"), "bad-answer"),
        (aiohttp.ClientPayloadError("cut off"), "unreachable"),
        (AssertionError("s3cret"), "bad-answer"),
    ],
    ids=repr,
)
def test_whatever_the_client_raises_is_translated(error: Exception, reason: str) -> None:
    """A text that we do not know is not shown: it might quote what was sent."""

    async def fails() -> NoReturn:
        raise error

    with pytest.raises(SignerUnavailable) as raised:
        asyncio.run(call(fails))
    assert raised.value.reason == reason
    assert "s3cret" not in str(raised.value)


def test_an_error_of_ours_passes() -> None:
    """It has its meaning already."""
    ours = SignerUnavailable("a redirect", reason="standby")

    async def fails() -> NoReturn:
        raise ours

    with pytest.raises(SignerUnavailable) as raised:
        asyncio.run(call(fails))
    assert raised.value is ours
