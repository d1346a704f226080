"""The way to Vault: whose certificates are accepted, and where its name leads, while the service runs."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
import structlog

from macp_auth.adapters.signers.vault_transit.connection import Connection, client_context
from macp_auth.adapters.signers.vault_transit.settings import VaultSettings
from macp_auth.adapters.signers.vault_transit.transport import call
from macp_auth.domain.errors import SignerUnavailable
from tests.support.fake_server import FakeServer, Reply
from tools.support.tls import Authority, Certificates

ANSWER = Reply(200, {"data": {"ttl": 7}})


async def ask(connection: Connection) -> int:
    answer = await call(connection.client("t").auth.token.lookup_self)
    seconds: int = answer["data"]["ttl"]
    return seconds


async def refused_by(connection: Connection) -> bool:
    try:
        await ask(connection)
    except SignerUnavailable:
        return True
    return False


def test_authorities_that_change_are_taken_up(tmp_path: Path) -> None:
    """Within a second or so; a half-written file changes nothing, and is logged once."""
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    pair = new.issue("vault")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(old.path.read_bytes())

    async def during(url: str) -> None:
        connection = Connection(VaultSettings(key="k", addr=url, cacert=str(trusted)))
        with pytest.raises(SignerUnavailable, match="MACP_AUTH_VAULT_CACERT") as refused:
            await ask(connection)
        assert refused.value.reason == "tls"
        trusted.write_bytes(new.path.read_bytes())
        async with asyncio.timeout(20):
            while await refused_by(connection):  # noqa: ASYNC110 - a connection has no event for it
                await asyncio.sleep(0.05)
        trusted.write_bytes(b"-----BEGIN CERT")
        with structlog.testing.capture_logs() as logs:
            async with asyncio.timeout(20):
                while not logs:
                    assert await ask(connection) == 7
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1)  # for another check
            assert await ask(connection) == 7
        assert ["cannot use the TLS files for Vault" in line["event"] for line in logs] == [True]
        await connection.aclose()

    with FakeServer(lambda _: ANSWER, Certificates(new.path, pair.certificate, pair.key)) as vault:
        asyncio.run(during(vault.url.replace("127.0.0.1", "localhost")))


def test_a_name_that_leads_elsewhere_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the active node does, after a failover, and the outage is to end within five seconds."""
    lookups: list[Any] = []
    real = socket.getaddrinfo

    def lead(host: Any, *arguments: Any, **named: Any) -> Any:
        if host != "active.vault.example":
            return real(host, *arguments, **named)
        lookups.append(host)
        return real("127.0.0.1", *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", lead)

    async def during(port: int) -> None:
        connection = Connection(VaultSettings(key="k", addr=f"http://active.vault.example:{port}"))
        await ask(connection)
        await asyncio.sleep(1.1)
        await ask(connection)
        await connection.aclose()

    with FakeServer(lambda _: Reply(200, ANSWER.body, {"connection": "close"})) as vault:
        asyncio.run(during(vault.port))
    assert len(lookups) == 2


def test_no_secret_of_tls_is_logged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of a browser has no effect."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "secrets"))
    assert client_context(VaultSettings(key="k", addr="https://localhost")).keylog_filename is None
    assert not (tmp_path / "secrets").exists()
