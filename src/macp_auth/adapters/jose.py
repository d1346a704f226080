"""Converts JSON Web Keys to keys and back (RFC 7517, RFC 7518 section 6), using ``cryptography``.

A key that could not sign a verifiable token is rejected, with a message that names the fault and never
shows a member's content.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from macp_auth.domain.encoding import base64url, from_base64url
from macp_auth.domain.keys import Algorithm, ECPublicJWK, PublicJWK, RSAPublicJWK

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

MIN_RSA_BITS = 2048
"""RFC 7518, section 3.3; NIST SP 800-57 part 1, table 2 (112 bits of strength)."""
MAX_RSA_BITS = 8192
"""A longer key takes seconds to check at start-up, and milliseconds per token."""
_MIN_EXPONENT, _MAX_EXPONENT = 65537, 2**33 - 1
"""FIPS 186-5, appendix A.1.1; the MACP runtime's library, ring, has the same limits."""
_FERMAT_STEPS = 32  # each finds primes further apart; all take less than a millisecond
_SMALL_PRIMES = math.prod(n for n in range(3, 752) if all(n % m for m in range(2, n)))  # SP 800-89, 5.3.3
_RSA_PRIMES = ("p", "q", "dp", "dq", "qi")
_P256_BYTES = 32
_PKCS1V15 = padding.PKCS1v15()
_SHA256 = hashes.SHA256()
_ES256 = ec.ECDSA(_SHA256)


class InvalidJWK(ValueError):
    """The JWK can't be used; the text says why and contains none of its values."""


def generate(algorithm: Algorithm) -> PrivateKey:
    """Return a new private key: RSA of 2048 bits, or P-256."""
    if algorithm is Algorithm.RS256:
        return rsa.generate_private_key(public_exponent=65537, key_size=MIN_RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def algorithm_of(key: PrivateKey | PublicKey) -> Algorithm:
    """Return the algorithm for this type of key."""
    return Algorithm.RS256 if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey) else Algorithm.ES256


def to_der(key: PrivateKey) -> bytes:
    """Return ``key`` as PKCS #8 DER."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def from_der(der: bytes) -> PrivateKey:
    """Return the key that :func:`to_der` wrote."""
    key = load_der_private_key(der, password=None)
    assert isinstance(key, PrivateKey)  # noqa: S101 - to_der writes nothing else
    return key


# --- keys to JWKs -------------------------------------------------------------------------------


def public_jwk(key: PublicKeyTypes) -> PublicJWK:
    """Return the public JWK of a public key of ``cryptography`` (RFC 7518, sections 6.2.1 and 6.3.1).

    Coordinates keep their leading zeros. The size of an RSA key is not checked.

    Raises:
        ValueError: the key is neither RSA nor on P-256.
    """
    if isinstance(key, rsa.RSAPublicKey):
        rsa_numbers = key.public_numbers()
        return RSAPublicJWK(n=_uint(rsa_numbers.n), e=_uint(rsa_numbers.e))
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        numbers = key.public_numbers()
        return ECPublicJWK(crv="P-256", x=_coordinate(numbers.x), y=_coordinate(numbers.y))
    raise ValueError("the key is neither RSA nor on P-256")


def private_jwk(key: PrivateKey) -> dict[str, str]:
    """Return the private JWK of ``key`` (RFC 7518, sections 6.2.2 and 6.3.2)."""
    if isinstance(key, rsa.RSAPrivateKey):
        n = key.private_numbers()
        return {
            "kty": "RSA",
            "n": _uint(n.public_numbers.n),
            "e": _uint(n.public_numbers.e),
            "d": _uint(n.d),
            "p": _uint(n.p),
            "q": _uint(n.q),
            "dp": _uint(n.dmp1),
            "dq": _uint(n.dmq1),
            "qi": _uint(n.iqmp),
        }
    numbers = key.private_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": _coordinate(numbers.public_numbers.x),
        "y": _coordinate(numbers.public_numbers.y),
        "d": _coordinate(numbers.private_value),
    }


def _uint(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8))


def _coordinate(value: int) -> str:
    return base64url(value.to_bytes(_P256_BYTES))


# --- JWKs to keys -------------------------------------------------------------------------------


def load(jwk: Mapping[str, Any]) -> PrivateKey | PublicKey:
    """Return the key of ``jwk``: private if it has a private member, else public.

    Raises:
        InvalidJWK: the type, curve, size, members or declared use does not allow a verifiable token, or
            the private key does not match the public key.
    """
    key: PrivateKey | PublicKey
    match jwk.get("kty"):
        case "RSA":
            key = _load_rsa(jwk)
            declared = Algorithm.RS256
        case "EC":
            key = _load_ec(jwk)
            declared = Algorithm.ES256
        case "oct":
            raise InvalidJWK(
                "kty is 'oct', a shared secret: publishing it would let anyone mint. Use RSA or EC"
            )
        case None:
            raise InvalidJWK("kty is missing")
        case _:
            raise InvalidJWK("kty is neither 'RSA' nor 'EC'")
    if jwk.get("alg", declared) != declared:
        raise InvalidJWK(f"alg contradicts kty: a key of this type signs with {declared}")
    if jwk.get("use", "sig") != "sig":
        raise InvalidJWK("use is not 'sig': the key is not meant for signatures")
    return key


def may_sign(jwk: Mapping[str, Any]) -> bool:
    """Whether the key's own ``key_ops`` allow it to sign (RFC 7517, section 4.3). Absent means yes."""
    operations = jwk.get("key_ops")
    return operations is None or (isinstance(operations, list) and "sign" in operations)


def _load_rsa(jwk: Mapping[str, Any]) -> rsa.RSAPrivateKey | rsa.RSAPublicKey:
    n, e = _read_uint(jwk, "n"), _read_uint(jwk, "e")
    if n.bit_length() < MIN_RSA_BITS:
        raise InvalidJWK(f"the RSA key has {n.bit_length()} bits; the least is {MIN_RSA_BITS}")
    if n.bit_length() > MAX_RSA_BITS:
        raise InvalidJWK(f"the RSA key has {n.bit_length()} bits; the most is {MAX_RSA_BITS}")
    _check_public_numbers(n, e)
    public = rsa.RSAPublicNumbers(e, n)
    try:
        if "d" not in jwk:
            return public.public_key()
        d = _read_uint(jwk, "d")
        if "oth" in jwk:
            raise InvalidJWK("the RSA key has more than two primes (oth), which is not supported")
        if any(member in jwk for member in _RSA_PRIMES):
            p, q, dp, dq, qi = (_read_uint(jwk, member) for member in _RSA_PRIMES)
        else:
            p, q = rsa.rsa_recover_prime_factors(n, e, d)
            dp, dq, qi = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
        private = rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key()
        _check_private_numbers(n.bit_length(), p, q, d)
    except InvalidJWK:
        raise
    except ValueError:
        raise InvalidJWK("the RSA members contradict each other: the halves are not of one key") from None
    _prove(private)
    return private


def _check_public_numbers(n: int, e: int) -> None:
    """Reject weaknesses that are visible in the public key."""
    if not _MIN_EXPONENT <= e <= _MAX_EXPONENT or e % 2 == 0:
        raise InvalidJWK(
            f"the RSA exponent (e) is not an odd number from {_MIN_EXPONENT} to {_MAX_EXPONENT}, "
            "as FIPS 186-5 and the MACP runtime require; make a key with 65537"
        )
    if n % 2 == 0 or math.gcd(n, _SMALL_PRIMES) > 1:
        raise InvalidJWK("the RSA modulus (n) has a small factor; make a new key")
    # Fermat's method: n is (a - b)(a + b), and of close primes, a is close to the root of n.
    root = math.isqrt(n)
    for a in range(root, root + _FERMAT_STEPS):
        square = a * a - n
        if square >= 0 and math.isqrt(square) ** 2 == square:
            raise _close_primes()


def _check_private_numbers(bits: int, p: int, q: int, d: int) -> None:
    """Reject a key that can be factored or violates FIPS 186-5, appendix A.1.1."""
    if not p.bit_length() == q.bit_length() == bits / 2:
        raise InvalidJWK("the RSA primes are not each half as long as the modulus; make a new key")
    if min(p, q) ** 2 < 2 ** (bits - 1):
        raise InvalidJWK("an RSA prime is too small, under 2^((bits-1)/2); make a new key")
    if abs(p - q) <= 2 ** (bits // 2 - 100):
        raise _close_primes()
    if d <= 2 ** (bits // 2):
        raise InvalidJWK("the private RSA exponent (d) is too small; make a new key")


def _close_primes() -> InvalidJWK:
    return InvalidJWK("the RSA primes are so close that anyone can find them; generate a new key")


def _load_ec(jwk: Mapping[str, Any]) -> ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey:
    if jwk.get("crv") != "P-256":
        raise InvalidJWK("crv is not 'P-256', the only curve that ES256 signs with")
    x, y = _read_coordinate(jwk, "x"), _read_coordinate(jwk, "y")
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1())
    try:
        if "d" not in jwk:
            return public.public_key()
        private = ec.EllipticCurvePrivateNumbers(_read_coordinate(jwk, "d"), public).private_key()
    except InvalidJWK:
        raise
    except ValueError:
        raise InvalidJWK("the EC members contradict each other: the halves are not of one key") from None
    _prove(private)
    return private


def _prove(key: PrivateKey) -> None:
    """Sign and verify once, to test that the halves match."""
    proof = b"macp-auth key check"
    if not verifies(key.public_key(), proof, sign(key, proof)):
        raise InvalidJWK("the private half does not belong to the public one")


def _read_uint(jwk: Mapping[str, Any], member: str) -> int:
    return int.from_bytes(_read_octets(jwk, member))


def _read_coordinate(jwk: Mapping[str, Any], member: str) -> int:
    octets = _read_octets(jwk, member)
    if len(octets) != _P256_BYTES:
        raise InvalidJWK(
            f"{member} has {len(octets)} octets; P-256 has {_P256_BYTES} (RFC 7518, section 6.2.1.2)"
        )
    return int.from_bytes(octets)


def _read_octets(jwk: Mapping[str, Any], member: str) -> bytes:
    value = jwk.get(member)
    if not isinstance(value, str) or not value:
        raise InvalidJWK(f"{member} is missing or not a string")
    try:
        return from_base64url(value)
    except ValueError:
        raise InvalidJWK(f"{member} is not base64url without padding (RFC 7515, section 2)") from None


# --- raw JWS signatures (RFC 7518, sections 3.3 and 3.4) -----------------------------------------


def sign(key: PrivateKey, signing_input: bytes) -> bytes:
    """Return the raw JWS signature."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(signing_input, _PKCS1V15, _SHA256)
    return raw_ecdsa_signature(key.sign(signing_input, _ES256))


def raw_ecdsa_signature(der: bytes) -> bytes:
    """Return a P-256 signature in JWS format: R, then S, of 32 bytes each (RFC 7518, section 3.4).

    Args:
        der: the signature in DER, as most backends return it: an Ecdsa-Sig-Value (RFC 3279, section 2.2.3).

    Raises:
        ValueError: ``der`` is not such a signature, or is one of a larger curve.
    """
    try:
        r, s = decode_dss_signature(der)
        return r.to_bytes(_P256_BYTES) + s.to_bytes(_P256_BYTES)
    except (ValueError, OverflowError):
        raise ValueError("not a P-256 signature in DER") from None


def verifies(key: PublicKey, signing_input: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is a raw JWS signature of ``signing_input`` by ``key``."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signing_input, _PKCS1V15, _SHA256)
        elif len(signature) == 2 * _P256_BYTES:
            r, s = int.from_bytes(signature[:_P256_BYTES]), int.from_bytes(signature[_P256_BYTES:])
            key.verify(encode_dss_signature(r, s), signing_input, _ES256)
        else:
            return False
    except InvalidSignature:
        return False
    return True
