"""What a Vault, or what stands in its place, may answer: each is an error of the domain, with its reason."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from macp_auth.adapters import jose
from macp_auth.adapters.signers.vault_transit.settings import VaultSettings
from macp_auth.adapters.signers.vault_transit.signer import VaultTransitSigner
from macp_auth.adapters.signers.vault_transit.transport import MAX_ANSWER_BYTES
from macp_auth.domain.errors import SignerError
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.secret import Secret
from tests.support.fake_server import FakeServer, Reply, Request

CREATED = "2026-11-22T22:48:44.031234567Z"
ED25519 = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
PEM = (
    jose.generate(Algorithm.ES256)
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


def key(**changes: Any) -> dict[str, Any]:
    version = {"public_key": PEM, "creation_time": CREATED}
    return {"data": {"type": "ecdsa-p256", "keys": {"1": version}, "min_encryption_version": 0, **changes}}


def signed(results: Any) -> Reply:
    return Reply(200, {"data": {"batch_results": results}})


def outcome(read: Reply, sign: Reply | None = None) -> SignerError | None:
    """What becomes of reading a key, and signing with it."""

    def reply(request: Request) -> Reply:
        if request.path.endswith("/lookup-self"):
            return Reply(200, {"data": {"ttl": 0}})
        return read if "/keys/" in request.path else sign or signed([])

    async def ask(url: str) -> None:
        signer = VaultTransitSigner(VaultSettings(key="k", addr=url, token=Secret("t")))
        try:
            [version] = await signer.key_versions()
            await signer.sign(version.kid, b"a.b")
        finally:
            await signer.aclose()

    with FakeServer(reply) as vault:
        try:
            asyncio.run(ask(vault.url))
        except SignerError as error:
            return error
    return None


ERRORS: list[tuple[int, Any, str]] = [
    (503, {"errors": [{"code": 1}]}, "unavailable"),
    (503, {"errors": [None]}, "unavailable"),
    (503, {"errors": 7}, "unavailable"),
    (503, b"<html>upstream is away</html>", "unavailable"),
    (429, b"slow down", "rate-limited"),
    (400, {"errors": ["no such thing"]}, "refused"),
    (400, b"<html>", "bad-answer"),
    (404, b"default backend - 404", "bad-answer"),
    (403, b"<html>who are you?</html>", "bad-answer"),
    (500, b"<html>", "bad-answer"),
    (500, {"errors": ["local node not active but active cluster node not found"]}, "standby"),
    (500, {"errors": ["1 error occurred"]}, "refused"),
    (200, b"<html>welcome</html>", "bad-answer"),
    (200, b"[" * 100_000, "bad-answer"),
    (200, b"null", "bad-answer"),
    (204, b"", "bad-answer"),
]


@pytest.mark.parametrize(("status", "body", "reason"), ERRORS)
@pytest.mark.parametrize("of", [lambda reply: (reply,), lambda reply: (Reply(200, key()), reply)])
def test_an_answer_that_is_no_vault_s(
    status: int, body: Any, reason: str, of: Callable[[Reply], tuple[Reply, ...]]
) -> None:
    """To reading a key, and to signing."""
    error = outcome(*of(Reply(status, body)))
    assert error is not None
    assert error.reason == reason


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": None},
        {"keys": []},
        {"keys": {"1": 1795305899}},
        {"keys": {"1": {"public_key": 7, "creation_time": CREATED}}},
        {"keys": {"1": {"public_key": "no PEM", "creation_time": CREATED}}},
        {"keys": {"1": {"public_key": ED25519, "creation_time": CREATED}}},
        {"keys": {"1": {"public_key": PEM, "creation_time": "yesterday"}}},
        {"keys": {"one": {"public_key": PEM, "creation_time": CREATED}}},
        {"min_encryption_version": "0"},
        {"type": 7},
    ],
)
def test_a_key_that_can_t_be_read(changes: dict[str, Any]) -> None:
    error = outcome(Reply(200, key(**changes)))
    assert error is not None
    assert error.reason == "bad-answer"


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([None], "bad-answer"),
        (["x"], "bad-answer"),
        ({}, "bad-answer"),
        ("x", "bad-answer"),
        ([], "bad-answer"),
        ([{"signature": None}], "bad-answer"),
        ([{"signature": "vault:v1:€"}], "bad-answer"),
        ([{}], "wrong-version"),
        ([{"signature": "vault:v2:AAAA"}], "wrong-version"),
        ([{"error": "no"}], "refused"),
        ([{"error": "no such key version"}], "unknown-kid"),
    ],
)
def test_a_signature_that_can_t_be_read(results: Any, reason: str) -> None:
    error = outcome(Reply(200, key()), signed(results))
    assert error is not None
    assert error.reason == reason


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b" " * (MAX_ANSWER_BYTES + 1), {}),
        (gzip.compress(b" " * (2 * MAX_ANSWER_BYTES)), {"content-encoding": "gzip"}),
    ],
    ids=["long", "compressed"],
)
def test_an_answer_without_end_is_not_read_to_it(body: bytes, headers: dict[str, str]) -> None:
    """Nor is one unpacked that was asked for unpacked."""
    error = outcome(Reply(200, body, headers))
    assert error is not None
    assert error.reason == "bad-answer"


def test_the_reason_is_that_of_the_operation() -> None:
    """A key that may not be read says nothing of a signature that does not come."""
    asked: list[str] = []

    def reply(request: Request) -> Reply:
        asked.append(request.path)
        if request.path.endswith("/lookup-self"):
            return Reply(200, {"data": {"ttl": 0}})
        if "/keys/" in request.path and len([path for path in asked if "/keys/" in path]) == 1:
            return Reply(200, key())
        return Reply(403, {"errors": ["permission denied"]}) if "/keys/" in request.path else hang()

    def hang() -> Reply:
        time.sleep(5)
        return Reply(503, b"")

    async def ask(url: str) -> SignerError:
        signer = VaultTransitSigner(VaultSettings(key="k", addr=url, token=Secret("t"), timeout_ms=2000))
        try:
            [version] = await signer.key_versions()
            with pytest.raises(SignerError):
                await signer.key_versions()
            with pytest.raises(SignerError) as caught:
                await signer.sign(version.kid, b"a.b")
        finally:
            await signer.aclose()
        return caught.value

    with FakeServer(reply) as vault:
        assert asyncio.run(ask(vault.url)).reason == "timeout"


def test_closing_is_finished_by_one_who_is_cancelled() -> None:
    """A second call waits for the same end."""

    async def close(url: str) -> None:
        signer = VaultTransitSigner(VaultSettings(key="k", addr=url, token=Secret("t")))
        await signer.key_versions()
        closing = asyncio.create_task(signer.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await signer.aclose()
        assert asyncio.all_tasks() <= {asyncio.current_task(), closing}

    def reply(request: Request) -> Reply:
        return Reply(200, {"data": {"ttl": 0}} if request.path.endswith("/lookup-self") else key())

    with FakeServer(reply) as vault:
        asyncio.run(close(vault.url))
