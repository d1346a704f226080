"""Which keys are offered: aliases, states, and what is no signing key. moto plays KMS."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from macp_auth import KeyVersion, Signer, SignerMisconfigured, SignerRefused, UnknownKid


async def versions(signer: Signer) -> list[KeyVersion]:
    return list(await signer.key_versions())


@pytest.fixture
def slots(admin: Any, create_key: Callable[..., str]) -> tuple[str, str]:
    """Two aliases of one key, as the README sets them up."""
    key, name = create_key(), uuid.uuid4().hex
    names = (f"alias/{name}-a", f"alias/{name}-b")
    for alias in names:
        admin.create_alias(AliasName=alias, TargetKeyId=key)
    return names


def test_moving_an_alias_is_a_rotation(
    admin: Any, slots: tuple[str, str], create_key: Callable[..., str], open_kms: Callable[..., Signer]
) -> None:
    """The next reading has the alias's new key, the newer one, beside its predecessor; both sign."""

    async def rotate() -> None:
        async with aclosing(open_kms(", ".join(slots))) as signer:
            (old,) = await versions(signer)  # one key, though two names have it
            admin.update_alias(AliasName=slots[1], TargetKeyId=create_key("RSA_2048"))
            kept, new = await versions(signer)
            assert kept == old
            assert (new.algorithm, new.can_sign) == ("RS256", True)
            assert new.created_at is not None
            assert old.created_at is not None
            assert new.created_at > old.created_at
            assert len(await signer.sign(old.kid, b"x")) == 64
            assert len(await signer.sign(new.kid, b"x")) == 256

    asyncio.run(rotate())


def test_creation_is_what_kms_says(
    admin: Any, create_key: Callable[..., str], open_kms: Callable[..., Signer]
) -> None:
    """``created_at`` is the key's CreationDate, in seconds since the epoch."""
    key = create_key()

    async def read() -> float | None:
        async with aclosing(open_kms(key)) as signer:
            return (await versions(signer))[0].created_at

    created = admin.describe_key(KeyId=key)["KeyMetadata"]["CreationDate"]
    assert asyncio.run(read()) == created.timestamp()


@pytest.mark.parametrize("withdraw", ["disable_key", "schedule_key_deletion"])
def test_withdrawn_key(
    withdraw: str, admin: Any, create_key: Callable[..., str], open_kms: Callable[..., Signer]
) -> None:
    """A key that is disabled or waits for its deletion is not offered and can't sign; the other one stays."""
    first, second = create_key(), create_key()

    async def revoke() -> None:
        async with aclosing(open_kms(f"{first},{second}")) as signer:
            revoked, kept = await versions(signer)
            getattr(admin, withdraw)(KeyId=first)
            assert await versions(signer) == [kept]
            with pytest.raises(UnknownKid):
                await signer.sign(revoked.kid, b"x")
            assert await signer.sign(kept.kid, b"x")

    asyncio.run(revoke())


def test_no_key_is_enabled(
    admin: Any, create_key: Callable[..., str], open_kms: Callable[..., Signer]
) -> None:
    """The last key that was enabled is not withdrawn in silence: the reading fails, so the host keeps it."""
    key = create_key()
    admin.disable_key(KeyId=key)

    async def read() -> None:
        async with aclosing(open_kms(key)) as signer:
            await signer.key_versions()

    with pytest.raises(SignerRefused, match="enable one") as refusal:
        asyncio.run(read())
    assert refusal.value.reason == "key-disabled"


def test_missing_key_fails_the_whole_reading(
    create_key: Callable[..., str], open_kms: Callable[..., Signer]
) -> None:
    """An alias that vanished must not take its key out of the JWKS; what was read before still signs."""
    keys = f"{create_key()},{uuid.uuid4()}"

    async def read() -> None:
        async with aclosing(open_kms(keys)) as signer:
            await signer.key_versions()

    with pytest.raises(SignerRefused, match="name 2 in MACP_AUTH_AWS_KMS_KEYS: .*NotFound") as refusal:
        asyncio.run(read())
    assert refusal.value.reason == "key-missing"


@pytest.mark.parametrize(
    ("spec", "usage"),
    [
        ("ECC_SECG_P256K1", "SIGN_VERIFY"),
        ("ECC_NIST_P384", "SIGN_VERIFY"),
        ("RSA_2048", "ENCRYPT_DECRYPT"),
        ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"),
    ],
)
def test_key_of_another_kind(
    spec: str, usage: str, create_key: Callable[..., str], open_kms: Callable[..., Signer]
) -> None:
    """It is refused with its kind and what would do; the id is not repeated."""
    key = create_key(spec, usage)

    async def read() -> None:
        async with aclosing(open_kms(key)) as signer:
            await signer.key_versions()

    with pytest.raises(SignerMisconfigured, match=f"name 1 .* {spec} for {usage}; .*ECC_NIST_P256") as error:
        asyncio.run(read())
    assert key not in str(error.value)
