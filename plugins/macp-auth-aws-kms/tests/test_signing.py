"""Signatures that KMS makes, judged by PyJWT and joserfc. moto plays KMS."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import aclosing

import joserfc.jwt
import jwt
import msgspec
import pytest
from joserfc.jwk import KeySet

from macp_auth import KeyVersion, Signer, UnknownKid, thumbprint


async def token(signer: Signer, version: KeyVersion, number: int = 0) -> str:
    """Return a token as the service would make it."""
    parts = {"alg": version.algorithm, "kid": version.kid}, {"sub": f"agent://{number}"}
    signing_input = b".".join(map(encoded, (json.dumps(part).encode() for part in parts)))
    signature = await signer.sign(version.kid, signing_input)
    return (signing_input + b"." + encoded(signature)).decode()


def encoded(octets: bytes) -> bytes:
    return base64.urlsafe_b64encode(octets).rstrip(b"=")


def judged(minted: str, version: KeyVersion) -> str:
    """Return the subject, if both libraries accept the token with the published key."""
    jwk = {**msgspec.to_builtins(version.public_jwk), "kid": version.kid, "alg": version.algorithm.value}
    algorithms = [version.algorithm.value]
    claims = jwt.decode(minted, jwt.PyJWK(jwk), algorithms=algorithms)
    keys = KeySet.import_key_set({"keys": [jwk]})
    assert joserfc.jwt.decode(minted, keys, algorithms=algorithms).claims == claims
    return str(claims["sub"])


@pytest.mark.parametrize(
    ("spec", "algorithm", "octets"),
    [
        ("RSA_2048", "RS256", 256),
        ("RSA_3072", "RS256", 384),
        ("RSA_4096", "RS256", 512),
        ("ECC_NIST_P256", "ES256", 64),
    ],
)
def test_every_kind_of_key_signs(
    spec: str,
    algorithm: str,
    octets: int,
    create_key: Callable[..., str],
    open_kms: Callable[..., Signer],
) -> None:
    """The signature has the length of its kind, and two libraries verify it with the published key."""

    async def sign() -> None:
        async with aclosing(open_kms(create_key(spec))) as signer:
            (version,) = await signer.key_versions()
            assert version.algorithm == algorithm
            assert version.kid == thumbprint(version.public_jwk)
            assert len(await signer.sign(version.kid, b"x" * 4096)) == octets
            assert judged(await token(signer, version), version) == "agent://0"

    asyncio.run(sign())


def test_64_at_once(create_key: Callable[..., str], open_kms: Callable[..., Signer]) -> None:
    """64 signatures are made at once with the default settings, and each is of its own input."""

    async def sign() -> list[str]:
        async with aclosing(open_kms(create_key())) as signer:
            (version,) = await signer.key_versions()
            minted = await asyncio.gather(*(token(signer, version, number) for number in range(64)))
        return [judged(one, version) for one in minted]

    assert asyncio.run(sign()) == [f"agent://{number}" for number in range(64)]


def test_a_kid_that_was_never_offered(
    create_key: Callable[..., str], open_kms: Callable[..., Signer]
) -> None:
    """The key's id in KMS is no kid."""

    async def sign(key_id: str) -> None:
        async with aclosing(open_kms(key_id)) as signer:
            await signer.key_versions()
            await signer.sign(key_id, b"x")

    with pytest.raises(UnknownKid):
        asyncio.run(sign(create_key()))
