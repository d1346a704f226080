"""Signatures that Cloud KMS makes, judged by PyJWT and joserfc."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import joserfc.jwt
import jwt
import msgspec
import pytest
from joserfc.jwk import KeySet

from macp_auth import KeyVersion, Signer


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
    ("algorithm", "jose", "octets"),
    [
        ("RSA_SIGN_PKCS1_2048_SHA256", "RS256", 256),
        ("RSA_SIGN_PKCS1_3072_SHA256", "RS256", 384),
        ("RSA_SIGN_PKCS1_4096_SHA256", "RS256", 512),
        ("EC_SIGN_P256_SHA256", "ES256", 64),
    ],
)
def test_every_algorithm_signs(
    algorithm: str, jose: str, octets: int, kms: Any, open_kms: Callable[..., Signer]
) -> None:
    """The signature has the length of its kind, and two libraries verify it with the published key."""
    kms.create(algorithm)

    async def sign() -> None:
        async with aclosing(open_kms()) as signer:
            (version,) = await signer.key_versions()
            assert version.algorithm == jose
            assert len(await signer.sign(version.kid, b"x" * 8192)) == octets
            assert judged(await token(signer, version), version) == "agent://0"

    asyncio.run(sign())


def test_64_at_once(kms: Any, open_kms: Callable[..., Signer]) -> None:
    """64 signatures are made at once, and each is of its own input."""
    kms.create()

    async def sign() -> list[str]:
        async with aclosing(open_kms()) as signer:
            (version,) = await signer.key_versions()
            minted = await asyncio.gather(*(token(signer, version, number) for number in range(64)))
        return [judged(one, version) for one in minted]

    assert asyncio.run(sign()) == [f"agent://{number}" for number in range(64)]
