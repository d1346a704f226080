"""The images that people run: Vault's own, and OpenBao's."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from tests.support.containers import vault_container as run_container
from tools.support.openbao import Vault
from tools.support.service import Service
from tools.support.vault_environment import with_token
from tools.support.verifiers import verify_with_pyjwt


@pytest.fixture(scope="module", params=["hashicorp/vault:1.16.1", "openbao/openbao:latest"])
def vault_container(request: pytest.FixtureRequest) -> Iterator[Vault]:
    """A container of that image, with the transit engine."""
    root_token = secrets.token_hex(16)
    with run_container(request.param, root_token) as container:
        vault = Vault(container.get_connection_url(), root_token)
        vault.client().sys.enable_secrets_engine("transit")
        yield vault


def test_a_key_in_a_container_signs(
    vault_container: Vault, key_name: str, start_service: Callable[..., Service]
) -> None:
    """The service mints with a key of the container's, and with no permission but to read it and to sign."""
    vault_container.create_key(key_name, "ecdsa-p256")
    service = start_service(with_token(vault_container, key_name))
    claims = verify_with_pyjwt(service.mint(sender="agent://risk")["token"], service.jwks())
    assert claims["sub"] == "agent://risk"
