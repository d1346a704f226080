"""The runtime gets the keys over plain HTTP from a service that mints over TLS only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.support.bounded import HANG_SECONDS
from tools.support.macp_runtime import MacpRuntime, verifying
from tools.support.processes import mint_bytes
from tools.support.service import free_port
from tools.support.tls import Authority
from tools.support.tls_service import TLSService, tls_settings, trusting
from tools.support.wire import exchange


@pytest.mark.parametrize(("tls", "answer"), [("off", "accepted"), ("auto", "status UNAUTHENTICATED")])
def test_keys_without_tls(tmp_path: Path, tls: str, answer: str) -> None:
    """With `MACP_AUTH_JWKS_TLS=off`; and the listener mints nothing."""
    authority = Authority(tmp_path)
    client = authority.issue("client")
    port = free_port()
    env = tls_settings(authority.issue("server")) | {
        "MACP_AUTH_TLS_CLIENT_CA_FILE": str(authority.path),
        "MACP_AUTH_JWKS_PORT": str(port),
        "MACP_AUTH_JWKS_TLS": tls,
    }
    with TLSService(tmp_path, authority.path, env) as service:
        minted = service.exchange(mint_bytes(), trusting(authority.path, client))
        token = json.loads(minted.body)["token"]
        with MacpRuntime(tmp_path, verifying(f"http://127.0.0.1:{port}/.well-known/jwks.json")) as runtime:
            assert runtime.answer_to(token) == answer
        if tls == "off":
            assert exchange(port, mint_bytes(), within=HANG_SECONDS).status == 404
