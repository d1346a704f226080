"""Explains what is wrong with a signature, and the remedy."""

from __future__ import annotations

import binascii
import functools
import hashlib
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable, Iterator, Sequence

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from macp_auth.adapters import jose
from macp_auth.domain.keys import KeyVersion, RSAPublicJWK
from macp_auth.testing.registry import Nonconformity

ES256_BYTES = 64
_HALF = ES256_BYTES // 2
_OTHER_HASHES: Sequence[hashes.HashAlgorithm] = (hashes.SHA1(), hashes.SHA384(), hashes.SHA512())  # noqa: S303 - to recognise


@functools.lru_cache(maxsize=64)  # thousands of signatures are judged by the same few keys
def public_key(version: KeyVersion) -> jose.PublicKey:
    """Return the key that ``version`` publishes.

    Raises:
        Nonconformity: it is not a valid public key.
    """
    try:
        key = jose.load({**msgspec.to_builtins(version.public_jwk), "alg": version.algorithm.value})
    except (jose.InvalidJWK, TypeError) as error:
        raise Nonconformity(f"the key published as {version.kid!r} is invalid: {error}") from None
    if not isinstance(key, jose.PublicKey):
        raise Nonconformity(
            f"the key published as {version.kid!r} has a private member: publish n and e, or x and y"
        )
    return key


def judge(
    version: KeyVersion, signing_input: bytes, signature: object, versions: Sequence[KeyVersion] = ()
) -> None:
    """Return if ``signature`` is a raw JWS signature of ``signing_input`` by ``version``.

    Args:
        version: the requested version.
        signing_input: the input.
        signature: the result of sign().
        versions: all versions, to find out which other one signed.

    Raises:
        Nonconformity: it is not; the text says what it is instead.
    """
    key = public_key(version)
    if not isinstance(signature, bytes):
        raise Nonconformity(f"sign() returned a {type(signature).__name__}: return bytes")
    if not jose.verifies(key, signing_input, signature):
        found = next(_explanations(version, key, signing_input, signature, versions), None)
        raise Nonconformity(
            f"a signature of {version.kid!r} ({version.algorithm}) does not verify with its published key: "
            + (found or "no published key made it; sign the unchanged bytes, with the published key")
        )


def _explanations(
    version: KeyVersion,
    key: jose.PublicKey,
    signing_input: bytes,
    signature: bytes,
    versions: Sequence[KeyVersion],
) -> Iterator[str]:
    if not signature:
        yield "it is empty"
    elif not any(signature):
        yield f"it is {len(signature)} zero bytes"
    for other in versions:
        if other.kid != version.kid and jose.verifies(public_key(other), signing_input, signature):
            yield f"the version {other.kid!r} made it; sign with the requested version, never the latest"
    for encoding, decoded in _decoded(signature):
        if jose.verifies(key, signing_input, decoded):
            yield f"it is {encoding} text; return the bytes"
    explain: Callable[..., Iterator[str]] = _rsa if isinstance(key, rsa.RSAPublicKey) else _ecdsa
    yield from explain(key, signing_input, signature)


def _decoded(signature: bytes) -> Iterator[tuple[str, bytes]]:
    for encoding, decode in (
        ("hexadecimal", bytes.fromhex),
        ("base64", lambda text: b64decode(text, validate=True)),
        ("base64url", lambda text: urlsafe_b64decode(text + "=" * (-len(text) % 4))),
    ):
        try:
            yield encoding, decode(signature.decode("ascii"))
        except (ValueError, binascii.Error):
            continue


def _rsa(key: rsa.RSAPublicKey, signing_input: bytes, signature: bytes) -> Iterator[str]:
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
    if _holds(key.verify, signature, signing_input, pss, hashes.SHA256()):
        yield "it has PSS padding, which is PS256; RS256 is RSASSA-PKCS1-v1_5 (RFC 7518, section 3.3)"
    pkcs1 = padding.PKCS1v15()
    for algorithm in _OTHER_HASHES:
        if _holds(key.verify, signature, signing_input, pkcs1, algorithm):
            yield f"its hash is {algorithm.name}; RS256 hashes with SHA-256"
    if _holds(key.verify, signature, hashlib.sha256(signing_input).digest(), pkcs1, hashes.SHA256()):
        yield "the digest was hashed again; configure the backend for a digest as its input"
    if len(signature) != (key.key_size + 7) // 8:
        yield f"it has {len(signature)} bytes, the modulus {(key.key_size + 7) // 8}; keep leading zeros"


def _ecdsa(key: ec.EllipticCurvePublicKey, signing_input: bytes, signature: bytes) -> Iterator[str]:
    if _holds(key.verify, signature, signing_input, ec.ECDSA(hashes.SHA256())):
        yield "it is DER; return R and S as 32 bytes each, big-endian (RFC 7518, section 3.4)"
    if len(signature) != ES256_BYTES:
        yield (
            f"it has {len(signature)} bytes; ES256 has 64, R and S as 32 each with their leading zeros "
            "(RFC 7518, section 3.4)"
        )
        return
    r, s = signature[:_HALF], signature[_HALF:]
    if jose.verifies(key, signing_input, s + r):
        yield "S comes before R; R comes first (RFC 7518, section 3.4)"
    if jose.verifies(key, signing_input, r[::-1] + s[::-1]):
        yield "R and S are little-endian; they are big-endian (RFC 7518, section 3.4)"
    der = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
    for algorithm in _OTHER_HASHES:
        if _holds(key.verify, der, signing_input, ec.ECDSA(algorithm)):
            yield f"its hash is {algorithm.name}; ES256 hashes with SHA-256"
    twice = hashlib.sha256(hashlib.sha256(signing_input).digest()).digest()
    if _holds(key.verify, der, twice, ec.ECDSA(Prehashed(hashes.SHA256()))):
        yield "the digest was hashed again; configure the backend for a digest as its input"


def _holds(verify: Callable[..., None], *arguments: object) -> bool:
    try:
        verify(*arguments)
    except (InvalidSignature, ValueError):
        return False
    return True


def has_leading_zero(version: KeyVersion, signature: bytes) -> tuple[bool, bool]:
    """Return whether R and whether S of an ES256 signature begins with a zero byte."""
    assert not isinstance(version.public_jwk, RSAPublicJWK)  # noqa: S101 - the caller asks for EC keys only
    return signature[0] == 0, signature[_HALF] == 0
