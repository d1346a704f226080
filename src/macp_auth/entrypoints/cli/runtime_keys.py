"""The keys of a JWK Set as the MACP runtime reads them, and their signatures.

The runtime reads ``kty``, ``kid`` and the numbers. Other verifiers also read ``use``, ``key_ops``, ``alg``
and ``crv``: see :meth:`PublishedKey.rules_out`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError
from msgspec import Struct

from macp_auth.entrypoints.cli.runtime_json import decode_base64url, parse, readable

KEY_TYPES: Mapping[str, str] = {"RS256": "RSA", "ES256": "EC"}
"""The algorithms that the runtime accepts by default, and the type of their keys."""

_NUMBERS = {"RSA": ("n", "e"), "EC": ("x", "y")}
# ring's RSA_PKCS1_2048_8192_SHA256 counts whole octets, and accepts exponents of up to 33 bits.
_RSA_OCTETS = range(256, 1025)
_RSA_EXPONENTS = range(3, 2**33, 2)
_RSA_BITS = 2048
_GO_EXPONENTS = 2**31
_P256_OCTETS = 32


class PublishedKey(Struct, frozen=True):
    """One key that the runtime keeps, even if it cannot verify with it."""

    kid: str | None
    kty: str
    jwk: Mapping[str, Any]

    @property
    def usable(self) -> bool:
        """Whether the runtime's library can verify with it."""
        if self.kty not in _NUMBERS:
            return False
        first, second = (decode_base64url(self.jwk[name]) for name in _NUMBERS[self.kty])
        if self.kty == "EC":
            return len(first) == len(second) == _P256_OCTETS
        minimal = first[0] != 0 and second[0] != 0
        exponent = int.from_bytes(second, "big")
        return minimal and len(first) in _RSA_OCTETS and first[-1] % 2 == 1 and exponent in _RSA_EXPONENTS

    def verifies(self, alg: str, signing_input: bytes, signature: bytes) -> bool:
        """Whether PyJWT, an independent library, verifies ``signature`` with this key."""
        if KEY_TYPES.get(alg) != self.kty or not self.usable:
            return False
        numbers = {"kty": self.kty, "crv": "P-256"} | {name: self.jwk[name] for name in _NUMBERS[self.kty]}
        try:
            if self.kty == "EC":
                ec = ECAlgorithm(ECAlgorithm.SHA256)
                return ec.verify(signing_input, ec.from_jwk(numbers), signature)
            rsa = RSAAlgorithm(RSAAlgorithm.SHA256)
            return rsa.verify(signing_input, rsa.from_jwk(numbers), signature)  # type: ignore[arg-type]
        except (PyJWTError, ValueError):
            return False

    @property
    def usual(self) -> bool:
        """Whether other verifiers accept it too: jose counts bits, and Go refuses exponents from 2^31."""
        if self.kty != "RSA":
            return True
        n, e = (int.from_bytes(decode_base64url(self.jwk[name]), "big") for name in _NUMBERS["RSA"])
        return n.bit_length() >= _RSA_BITS and e < _GO_EXPONENTS

    @property
    def private(self) -> bool:
        """Whether the JWK contains a private key."""
        return "d" in self.jwk

    def rules_out(self, alg: str) -> list[str]:
        """Return the members that exclude verification of ``alg``."""
        operations = self.jwk.get("key_ops")
        fits = {
            "use": self.jwk.get("use") in (None, "sig"),
            "key_ops": operations is None or (isinstance(operations, list) and "verify" in operations),
            "alg": self.jwk.get("alg") in (None, alg),
            "crv": self.kty != "EC" or self.jwk.get("crv") == "P-256",
        }
        return [name for name, fit in fits.items() if not fit]


def read_jwks(data: bytes) -> Sequence[PublishedKey]:
    """Return the keys that the runtime reads from a JWK Set.

    Raises:
        ValueError: it refuses the whole set, or finds no key in it.
    """
    document = parse(data)
    if not readable(document):
        raise ValueError("not JSON that the runtime reads")
    jwks = document.get("keys") if isinstance(document, dict) else None
    found = [_key(jwk) for jwk in jwks if isinstance(jwk, dict)] if isinstance(jwks, list) else []
    if not (keys := [key for key in found if key is not None]):
        raise ValueError("no key")
    return keys


def candidates(keys: Sequence[PublishedKey], kid: object) -> Sequence[PublishedKey]:
    """Return the keys that the runtime tries: those with this kid, or all if none has it."""
    return [key for key in keys if key.kid is not None and key.kid == kid] or keys


def _key(jwk: Mapping[str, Any]) -> PublishedKey | None:
    kid, kty = jwk.get("kid"), jwk.get("kty")
    if kty == "oct":
        readable_key = isinstance(jwk.get("k"), str)
    elif isinstance(kty, str) and kty in _NUMBERS:
        readable_key = all(_is_octets(jwk.get(name)) for name in _NUMBERS[kty])
    else:
        return None
    return PublishedKey(kid if isinstance(kid, str) else None, kty, jwk) if readable_key else None


def _is_octets(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(decode_base64url(value))
    except ValueError:
        return False
