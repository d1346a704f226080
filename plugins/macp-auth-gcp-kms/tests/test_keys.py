"""Which versions of the key are offered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from google.cloud.kms_v1 import CryptoKeyVersion

from macp_auth import (
    KeyVersion,
    Signer,
    SignerError,
    SignerMisconfigured,
    SignerRefused,
    UnknownKid,
    thumbprint,
)

State: Any = CryptoKeyVersion.CryptoKeyVersionState
NOT_ENABLED = [state for state in State if state is not State.ENABLED]


def versions(signer: Signer) -> Sequence[KeyVersion]:
    async def read() -> Sequence[KeyVersion]:
        async with aclosing(signer):
            return await signer.key_versions()

    return asyncio.run(read())


def test_every_enabled_version(kms: Any, open_kms: Callable[..., Signer]) -> None:
    """All are offered on any number of pages, in the order of their numbers, under their thumbprints."""
    kms.max_page = 2
    names = [kms.create() for _ in range(5)]
    offered = versions(open_kms())
    assert [version.kid for version in offered] == [thumbprint(version.public_jwk) for version in offered]
    assert all(version.can_sign for version in offered)
    assert [request.name for request in kms.asked("GetPublicKey")] == names


def test_algorithm_changes_with_a_rotation(kms: Any, open_kms: Callable[..., Signer]) -> None:
    """A version may be of another algorithm than its predecessor, and each signs with its own."""
    kms.create()
    kms.create("RSA_SIGN_PKCS1_2048_SHA256")

    async def sign() -> list[int]:
        async with aclosing(open_kms()) as signer:
            return [len(await signer.sign(one.kid, b"x")) for one in await signer.key_versions()]

    assert asyncio.run(sign()) == [64, 256]


@pytest.mark.parametrize(
    ("times", "created_at"),
    [
        ({"create_time": 1000.0, "generate_time": 1000.0}, 1000),
        ({"create_time": 1000.0, "generate_time": 1600.0}, 1600),
        ({"create_time": 1000.0, "generate_time": 0.0, "import_time": 9000.0}, 9000),
    ],
    ids=["software", "slow HSM", "imported"],
)
def test_creation_is_when_the_material_came(
    times: dict[str, float], created_at: float, kms: Any, open_kms: Callable[..., Signer]
) -> None:
    """No verifier could have fetched the key before, so the publish lead begins there."""
    kms.create(**times)
    assert versions(open_kms())[0].created_at == created_at


@pytest.mark.parametrize("state", NOT_ENABLED, ids=lambda state: state.name)
def test_version_that_is_not_enabled(state: Any, kms: Any, open_kms: Callable[..., Signer]) -> None:
    """It is not offered and can't sign; the other one stays."""
    first, _ = kms.create(), kms.create()

    async def withdraw() -> None:
        async with aclosing(open_kms()) as signer:
            withdrawn, kept = await signer.key_versions()
            kms.versions[first].state = state
            assert await signer.key_versions() == [kept]
            with pytest.raises(UnknownKid):
                await signer.sign(withdrawn.kid, b"x")
            assert await signer.sign(kept.kid, b"x")

    asyncio.run(withdraw())


def test_no_version_is_enabled(
    kms: Any, failure: Callable[..., SignerError], open_kms: Callable[..., Signer]
) -> None:
    """The last one is not withdrawn in silence: the reading fails, so the host keeps it."""
    kms.create(state=State.DISABLED)
    error = failure(open_kms())
    assert (type(error), error.reason) == (SignerRefused, "key-disabled")


@pytest.mark.parametrize(
    "algorithm",
    [
        "EC_SIGN_P384_SHA384",
        "EC_SIGN_SECP256K1_SHA256",
        "RSA_SIGN_PSS_2048_SHA256",
        "RSA_SIGN_PKCS1_4096_SHA512",
        "RSA_SIGN_RAW_PKCS1_2048",
        "GOOGLE_SYMMETRIC_ENCRYPTION",
    ],
)
def test_version_of_another_algorithm(
    algorithm: str, kms: Any, failure: Callable[..., SignerError], open_kms: Callable[..., Signer]
) -> None:
    """The error has the number of the version, its algorithm and what would do."""
    kms.create()
    kms.create(algorithm)
    error = failure(open_kms())
    assert isinstance(error, SignerMisconfigured)
    assert f"version 2 of MACP_AUTH_GCP_KMS_KEY is of {algorithm}; it must be of EC_SIGN_P256" in str(error)
    assert "projects/" not in str(error)


@pytest.mark.filterwarnings("ignore:Unrecognized CryptoKeyVersionAlgorithm")
def test_algorithm_that_the_client_does_not_know(
    kms: Any, failure: Callable[..., SignerError], open_kms: Callable[..., Signer]
) -> None:
    """One that Google adds later is refused like another, not a fault of the plugin."""
    kms.versions[kms.create()]._pb.algorithm = 999
    assert "is of an unknown algorithm" in str(failure(open_kms()))


def test_public_key_is_asked_for_once(kms: Any, open_kms: Callable[..., Signer]) -> None:
    """Every read lists the versions again, for their states; a public key is cached."""
    kms.create()

    async def read_thrice() -> None:
        async with aclosing(open_kms()) as signer:
            for _ in range(3):
                await signer.key_versions()

    asyncio.run(read_thrice())
    assert (len(kms.asked("ListCryptoKeyVersions")), len(kms.asked("GetPublicKey"))) == (3, 1)
