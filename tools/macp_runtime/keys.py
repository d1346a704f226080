"""Key pairs by name, made when they are asked for; the same name is always the same pair.

An RSA modulus has many small primes here: a key of any size is then made, and signs, in no time. That is
worthless as a key, and the same to a verifier.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import math
import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

JWK = dict[str, Any]
OCT_SECRET = b"known to everybody who reads it "
_CURVES = {"p256": ec.SECP256R1(), "other": ec.SECP256R1(), "p384": ec.SECP384R1()}
_CRV = {"p256": "P-256", "other": "P-256", "p384": "P-384"}
_SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")  # DigestInfo: RFC 8017, section 9.2
_PRIME_BITS = 256
_SMALL = math.prod(range(3, 1000, 2))  # most candidates share a factor with it


class _RSA(NamedTuple):
    primes: list[int]
    n: int
    e: int

    def power(self, number: int) -> int:
        """``number`` to the private exponent, by the Chinese remainder theorem."""
        result, modulus = 0, 1
        for prime in self.primes:
            part = pow(number % prime, pow(self.e, -1, prime - 1), prime)
            result += modulus * ((part - result) * pow(modulus, -1, prime) % prime)
            modulus *= prime
        return result


def public(name: str) -> JWK:
    """The public JWK of the pair ``name``: p256, other, p384, ed25519, oct, or rsa-BITS-EXPONENT."""
    if name == "oct":
        return {"kty": "oct", "k": encode(OCT_SECRET)}
    if name == "ed25519":
        return {"kty": "OKP", "crv": "Ed25519", "x": encode(_ed25519().public_key().public_bytes_raw())}
    if name in _CURVES:
        numbers = _ec(name).public_key().public_numbers()
        size = (_CURVES[name].key_size + 7) // 8
        x, y = (encode(number.to_bytes(size, "big")) for number in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": _CRV[name], "x": x, "y": y}
    rsa = _rsa(name)
    return {"kty": "RSA", "n": encode_int(rsa.n), "e": encode_int(rsa.e)}


def sign(name: str, message: bytes) -> bytes:
    """The signature that fits the pair: RS256, ES256, ES256's with P-384, EdDSA or HS256."""
    if name == "oct":
        return hmac.digest(OCT_SECRET, message, "sha256")
    if name == "ed25519":
        return _ed25519().sign(message)
    if name in _CURVES:
        r, s = decode_dss_signature(_ec(name).sign(message, ec.ECDSA(hashes.SHA256())))
        return b"".join(number.to_bytes((_CURVES[name].key_size + 7) // 8, "big") for number in (r, s))
    rsa = _rsa(name)
    size = (rsa.n.bit_length() + 7) // 8
    suffix = b"\0" + _SHA256 + hashlib.sha256(message).digest()
    padded = b"\0\1" + b"\xff" * (size - 2 - len(suffix)) + suffix
    return rsa.power(int.from_bytes(padded, "big")).to_bytes(size, "big")


def encode(data: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """What :func:`encode` made."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode_int(number: int) -> str:
    """Base64urlUInt (RFC 7518, section 2)."""
    return encode(number.to_bytes((number.bit_length() + 7) // 8, "big"))


@functools.cache
def _ec(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(name.encode(), "big"), _CURVES[name])


@functools.cache
def _ed25519() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))


@functools.cache
def _rsa(name: str) -> _RSA:
    bits, e = map(int, name.split("-")[1:])
    chance = random.Random(name)  # noqa: S311 - the same name has to be the same pair
    sizes = [_PRIME_BITS] * (bits // _PRIME_BITS)
    sizes[-1] += bits % _PRIME_BITS
    primes = [_prime(size, e, chance) for size in sizes]
    n = math.prod(primes)
    assert n.bit_length() == bits
    return _RSA(primes, n, e)


def _prime(bits: int, e: int, chance: random.Random) -> int:
    while True:  # just under 2^bits, so that the product has as many bits as its factors together
        candidate = (1 << bits) - chance.getrandbits(bits - 16) | 1
        if math.gcd(candidate, _SMALL) > 1 or math.gcd(candidate - 1, e) > 1:
            continue
        if all(pow(base, candidate - 1, candidate) == 1 for base in (2, 3)):
            return candidate
