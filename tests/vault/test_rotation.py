"""Rotation and withdrawal in Vault while tokens are minted, without an action at the service."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.vault.load import Load
from tools.support.bounded import HANG_SECONDS
from tools.support.openbao import OpenBao
from tools.support.service import Service, wait_until
from tools.support.vault_environment import SHORT_ROTATION, with_token
from tools.support.verifiers import verify_with_pyjwt

pytestmark = pytest.mark.slow  # under load for seconds

LATE = 5  # for a loaded machine


def versions_published(service: Service) -> list[int]:
    """The transit versions in the JWKS, in its order."""
    return [int(key["kid"].split("-v")[1].split("-")[0]) for key in service.jwks()["keys"]]


def version_that_signs(service: Service) -> int:
    kid = jwt.get_unverified_header(service.mint(sender="agent://risk")["token"])["kid"]
    return int(kid.split("-v")[1].split("-")[0])


def test_three_rotations_under_load(
    openbao: OpenBao, key_name: str, start_service: Callable[..., Service]
) -> None:
    """Each version is published first, then signs, then leaves; no mint fails, every token verifies."""
    openbao.create_key(key_name, "ecdsa-p256")
    service = start_service(with_token(openbao, key_name, **SHORT_ROTATION), "--workers", "2")
    ever_published: dict[str, Any] = {}
    with Load(service, ttl_seconds=3) as load:
        for version in (2, 3, 4):
            openbao.rotate(key_name)
            wait_until(lambda: version in versions_published(service), within=LATE, what="published")  # noqa: B023
            assert version_that_signs(service) == version - 1
            wait_until(lambda: version_that_signs(service) == version, within=8 + LATE, what="signs")  # noqa: B023
            # By now both workers publish it; just after the first did, the other may not have.
            ever_published |= {key["kid"]: key for key in service.jwks()["keys"]}
            assert version - 1 in versions_published(service)
        wait_until(lambda: versions_published(service) == [4], within=4 + LATE, what="the old ones leave")
    assert load.failed == []
    for attempt in load.attempts:
        kid = jwt.get_unverified_header(attempt.token)["kid"]
        key = jwt.PyJWK(ever_published[kid])
        jwt.decode(attempt.token, key, audience="macp-runtime", options={"verify_exp": False})
    assert {kid.split("-v")[1][0] for kid in ever_published} == {"1", "2", "3", "4"}


def test_withdrawal_in_vault(openbao: OpenBao, key_name: str, start_service: Callable[..., Service]) -> None:
    """A raised min_decryption_version takes the old versions out, and the next one signs at once."""
    openbao.create_key(key_name, "ecdsa-p256")
    openbao.rotate(key_name)
    service = start_service(with_token(openbao, key_name, MACP_AUTH_KEY_REFRESH_SECONDS=30))
    assert versions_published(service) == [1, 2]
    assert version_that_signs(service) == 1
    with Load(service) as load:
        openbao.set_min_version(key_name, 2)
        withdrawn = time.monotonic()
        # The first mint that Vault refuses has the keys read again, long before the 30 s are over.
        wait_until(lambda: versions_published(service) == [2], within=LATE, what="the JWKS without it")
        load.wait_for_token(since=withdrawn, within=LATE)
    assert version_that_signs(service) == 2
    verify_with_pyjwt(service.mint(sender="agent://risk")["token"], service.jwks())
    assert all(attempt.status in (200, 503) for attempt in load.attempts)


def test_a_version_that_may_only_verify(
    openbao: OpenBao, key_name: str, start_service: Callable[..., Service]
) -> None:
    """Below min_encryption_version transit signs no more: the next version does, and both are published."""
    openbao.create_key(key_name, "ecdsa-p256")
    openbao.rotate(key_name)
    openbao.configure_key(key_name, min_encryption_version=2)
    service = start_service(with_token(openbao, key_name))
    assert versions_published(service) == [1, 2]
    assert version_that_signs(service) == 2


def test_a_version_without_its_private_half(
    openbao: OpenBao, key_name: str, start_service: Callable[..., Service]
) -> None:
    """It is published and does not sign, its time past or not, until its private half is imported."""
    first, second = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    openbao.import_key(key_name, first)
    openbao.import_public_version(key_name, second.public_key())
    its_time = time.time() + int(SHORT_ROTATION["MACP_AUTH_KEY_PUBLISH_LEAD_SECONDS"])
    service = start_service(with_token(openbao, key_name, **SHORT_ROTATION))
    with Load(service) as load:
        wait_until(lambda: time.time() > its_time, within=2 * HANG_SECONDS, what="its time to sign")
        load.wait_for(10)
        assert versions_published(service) == [1, 2]
        assert version_that_signs(service) == 1
        openbao.import_private_half(key_name, 2, second)
        wait_until(lambda: version_that_signs(service) == 2, within=HANG_SECONDS, what="version 2 signs")
    assert load.failed == []
    verify_with_pyjwt(service.mint(sender="agent://risk")["token"], service.jwks())
