"""The callers file as it changes: which issuers are asked for their keys."""

from __future__ import annotations

import asyncio
from pathlib import Path

from macp_auth.adapters.callers.source import CallersFile
from tests.adapters.callers.issuing import AUDIENCE, ISSUER, NAME, SUBJECT, document, private
from tests.support.fake_server import FakeServer, Reply
from tools.support import callers

SECRET = f"""
[[caller]]
name = "other"
secret_sha256 = "{"0" * 64}"
"""


def test_issuers_without_a_caller_are_no_longer_asked(tmp_path: Path) -> None:
    """They are asked again when a caller with a JWT is back."""

    async def live() -> None:
        source = CallersFile(path, audience="macp-runtime", max_ttl_seconds=3600)
        async with source.running():
            for text, asked in ((with_jwt, {NAME}), (issuer + SECRET, set()), (with_jwt, {NAME})):
                callers.write(path, text)
                assert await source.read() is not None
                assert source.failing_issuers().keys() == asked

    path = tmp_path / "callers.toml"
    with FakeServer(lambda _: Reply(200, document(private("ec-1")))) as server:
        issuer = f"""
[[issuer]]
name = "{NAME}"
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
jwks_url = "{server.url}"
"""
        with_jwt = f"""{issuer}
[[caller]]
name = "playground"
jwt = {{ issuer = "{NAME}", subject = "{SUBJECT}" }}
"""
        asyncio.run(live())
        assert len(server.requests) == 2
