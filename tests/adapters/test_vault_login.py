"""Files with a credential for Vault that can't hold one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from macp_auth.adapters.vault_transit.connection import Connection
from macp_auth.adapters.vault_transit.login import Login
from macp_auth.adapters.vault_transit.settings import VaultSettings
from macp_auth.domain.errors import SignerUnavailable


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n", "is empty"),
        (b"\xff\xfe", "it is not text"),
        (b"x" * 65537, "it is over 65536 bytes"),
        (None, "No such file"),
    ],
)
def test_a_file_that_holds_no_credential_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    """And none is shown to Vault that was cut."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    settings = VaultSettings(key="macp", addr="http://127.0.0.1:9", token_file=str(path))

    async def log_in() -> None:
        await Login(settings, Connection(settings)).log_in()

    with pytest.raises(SignerUnavailable, match=message) as raised:
        asyncio.run(log_in())
    assert raised.value.reason == "credential-unreadable"
    assert str(path) in str(raised.value)
