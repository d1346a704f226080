"""The conformance kit on ``vault-transit``, with a real server behind a network that can break."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest
import structlog

from macp_auth import Algorithm
from macp_auth.adapters.plugins import load_signer_plugin
from macp_auth.testing import SignerSubject
from macp_auth.testing.suite import SignerConformance
from tests.support.proxy import Proxy
from tests.support.stalls import assert_loop_is_free
from tools.support.openbao import OpenBao
from tools.support.vault_environment import allow, with_token

pytestmark = pytest.mark.slow  # the whole kit on a Vault

_NOTHING = 'path "transit/keys/none" { capabilities = ["read"] }'
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

    async def refuse_backend(self) -> None:
        await asyncio.to_thread(self._bao.write_policy, f"signer-{self._key}", _NOTHING)

    async def garble_backend(self) -> None:
        page = b"<html>502 Bad Gateway</html>"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(page)
        await asyncio.to_thread(self._proxy.answer, head + page)

    async def restore_backend(self) -> None:
        await asyncio.to_thread(self._proxy.let_pass)
        await asyncio.to_thread(allow, self._bao, self._key)


@pytest.fixture(autouse=True)
def logs_on_standard_error() -> Iterator[None]:
    """As in the service; structlog's default is standard output."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("algorithm", Algorithm)
class TestTransit(SignerConformance):
    """Both types of key."""

    @pytest.fixture
    def subject(self, openbao: OpenBao, key_name: str, algorithm: Algorithm) -> Iterator[SignerSubject]:
        with Proxy(openbao.port) as proxy:
            yield Transit(openbao, proxy, key_name, algorithm)

    def test_no_call_blocks_the_event_loop(self, subject: Transit) -> None:
        """All requests of a worker wait for it: unlike a plugin, it has no process of its own."""
        asyncio.run(assert_loop_is_free(subject))
