"""The conformance kit on ``vault-transit``, with a real server behind a network that can break."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from macp_auth import Algorithm
from macp_auth.adapters.plugins import load_signer_plugin
from macp_auth.testing import SignerSubject
from macp_auth.testing.suite import SignerConformance
from tests.support.proxy import Proxy
from tools.support.openbao import OpenBao
from tools.support.vault_environment import with_token

KEY_TYPES = {Algorithm.ES256: "ecdsa-p256", Algorithm.RS256: "rsa-2048"}


class Transit(SignerSubject):
    """A key with two versions, reached through a proxy."""

    def __init__(self, bao: OpenBao, proxy: Proxy, key: str, algorithm: Algorithm) -> None:
        bao.create_key(key, KEY_TYPES[algorithm])
        bao.rotate(key)
        # Half of the kit's deadline, so that a busy machine does not end a call before its own limit does.
        environ = with_token(bao, key, VAULT_ADDR=proxy.url, MACP_AUTH_VAULT_TIMEOUT_MS="1000")
        super().__init__(load_signer_plugin("vault-transit"), environ)
        self._bao = bao
        self._proxy = proxy
        self._key = key

    async def rotate(self) -> None:
        await asyncio.to_thread(self._bao.rotate, self._key)

    async def break_backend(self) -> None:
        await asyncio.to_thread(self._proxy.refuse)

    async def hang_backend(self) -> None:
        await asyncio.to_thread(self._proxy.hang)

    async def restore_backend(self) -> None:
        await asyncio.to_thread(self._proxy.let_pass)


@pytest.mark.parametrize("algorithm", Algorithm)
class TestTransit(SignerConformance):
    """Both types of key."""

    @pytest.fixture
    def subject(self, openbao: OpenBao, key_name: str, algorithm: Algorithm) -> Iterator[SignerSubject]:
        with Proxy(openbao.port) as proxy:
            yield Transit(openbao, proxy, key_name, algorithm)
