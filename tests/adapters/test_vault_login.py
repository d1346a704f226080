"""Files with a credential for Vault that can't hold one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from macp_auth.adapters.input_file import Content
from macp_auth.adapters.signers.vault_transit import credential
from macp_auth.adapters.signers.vault_transit.connection import Connection
from macp_auth.adapters.signers.vault_transit.credential import Login
from macp_auth.adapters.signers.vault_transit.settings import AuthMethod, VaultSettings
from macp_auth.domain.errors import SignerUnavailable
from macp_auth.domain.redaction import REDACTED, shown
from macp_auth.domain.secret import Secret
from tests.support.fake_server import FakeServer, Reply

METHODS: dict[str, dict[str, Any]] = {
    "token_file": {"auth": AuthMethod.TOKEN},
    "secret_id_file": {"auth": AuthMethod.APPROLE, "role_id": "r"},
    "jwt_file": {"auth": AuthMethod.JWT, "role": "r"},
}


def refusal_of(**settings: Any) -> SignerUnavailable:
    """What a login with a file that holds no credential raises."""
    made = VaultSettings(key="macp", addr="http://127.0.0.1:9", **settings)

    async def log_in() -> None:
        connection = Connection(made)
        try:
            await Login(made, connection).log_in()
        finally:
            await connection.aclose()

    with pytest.raises(SignerUnavailable) as raised:
        asyncio.run(log_in())
    assert raised.value.reason == "credential-unreadable"
    return raised.value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n", "is empty"),
        (b"\xff\xfe", "it is not text"),
        (b"x" * 65537, "it is over 65536 bytes"),
        (b"two\nlines", "it has control characters"),
        (b"\0", "it has control characters"),
        (None, "No such file"),
    ],
    ids=["empty", "binary", "long", "lines", "null", "missing"],
)
@pytest.mark.parametrize("field", METHODS)
def test_the_variable_of_a_file_that_holds_no_credential_is_named(
    tmp_path: Path, field: str, content: bytes | None, message: str
) -> None:
    """Not its path, which may be a credential itself; and none is shown to Vault that was cut."""
    path = tmp_path / "s3cret"
    if content is not None:
        path.write_bytes(content)
    refusal = refusal_of(**METHODS[field], **{field: str(path)})
    assert str(refusal).startswith(f"MACP_AUTH_VAULT_{field.upper()} ")
    assert message in str(refusal)
    assert "s3cret" not in str(refusal)


def test_the_file_that_kubernetes_mounts_is_shown() -> None:
    """It is the default, so no variable's content."""
    refusal = refusal_of(auth=AuthMethod.KUBERNETES, role="r")
    assert "MACP_AUTH_VAULT_JWT_FILE" in str(refusal)
    assert "/var/run/secrets/kubernetes.io/serviceaccount/token" in str(refusal)


@pytest.mark.parametrize("answer", [b"null", b"{}", b'{"auth": null}', b"<html>"], ids=bytes.decode)
def test_an_answer_to_a_renewal_that_is_none(answer: bytes) -> None:
    """It is an error of ours, or the token would not be renewed again."""

    async def renew() -> None:
        connection = Connection(settings)
        login = Login(settings, connection)
        try:
            lease = await login.log_in()
            server.reply = lambda _: Reply(200, answer)
            await login.renew(lease)
        finally:
            await connection.aclose()

    with FakeServer(lambda _: Reply(200, {"data": {"ttl": 60, "renewable": True}})) as server:
        settings = VaultSettings(key="macp", addr=server.url, token=Secret("t"))
        with pytest.raises(SignerUnavailable) as raised:
            asyncio.run(renew())
    assert raised.value.reason == "bad-answer"


@pytest.mark.parametrize(
    "auth",
    [
        None,
        {"lease_duration": 60},
        {"client_token": 7, "lease_duration": 60},
        {"client_token": "a\nb", "lease_duration": 60},
        {"client_token": "t", "lease_duration": "1h"},
        {"client_token": "t", "lease_duration": 60, "renewable": "yes"},
    ],
)
def test_an_answer_to_a_login_that_is_none(auth: object) -> None:
    """What can't be used is not kept until it is."""

    async def log_in(url: str) -> None:
        settings = VaultSettings(
            key="k", addr=url, auth=AuthMethod.APPROLE, role_id="r", secret_id=Secret("s")
        )
        connection = Connection(settings)
        try:
            await Login(settings, connection).log_in()
        finally:
            await connection.aclose()

    with (
        FakeServer(lambda _: Reply(200, {"auth": auth})) as server,
        pytest.raises(SignerUnavailable) as raised,
    ):
        asyncio.run(log_in(server.url))
    assert raised.value.reason == "bad-answer"


def test_a_role_id_that_is_a_name_is_shown(tmp_path: Path) -> None:
    """Remedies name paths and policies like it; one that Vault made is concealed."""
    name, made = "macp-auth-prod-role", str(uuid4())
    for role_id in (name, made):
        refusal_of(auth=AuthMethod.APPROLE, role_id=role_id, secret_id_file=str(tmp_path / "none"))
    assert shown(f"auth/{name}: {made}") == f"auth/{name}: {REDACTED}"


@pytest.mark.parametrize(
    "holder",
    [
        Content(b"s3cret", []),
        credential._Auth(client_token="s3cret", lease_duration=1),
        credential._RefusedSecretId("s3cret", 1, "refused"),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_what_holds_a_credential_does_not_show_it(holder: object) -> None:
    """In a traceback with locals, or a debugger."""
    assert "s3cret" not in f"{holder!r} {holder}"
