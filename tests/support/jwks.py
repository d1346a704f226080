"""Keys of every kind, good and bad, made when the tests run."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

from joserfc.jwk import ECKey, JWKRegistry, OctKey, OKPKey, RSAKey

from macp_auth.domain.encoding import base64url

JWK = dict[str, Any]
RSA_PRIMES = ("p", "q", "dp", "dq", "qi")


@functools.cache
def _key(kty: str, size: int | str, copy: int) -> Any:
    assert copy >= 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joserfc warns of the weak keys that we want
        key = JWKRegistry.generate_key(kty, size, auto_kid=False)
    assert isinstance(key, RSAKey | ECKey | OctKey | OKPKey)
    return key


def rsa(bits: int = 2048, *, copy: int = 0) -> JWK:
    """A private RSA JWK; another ``copy`` is another key."""
    return dict(_key("RSA", bits, copy).as_dict(private=True))


def ec(curve: str = "P-256", *, copy: int = 0) -> JWK:
    """A private EC JWK."""
    return dict(_key("EC", curve, copy).as_dict(private=True))


def public(jwk: JWK) -> JWK:
    """The public half."""
    return {name: value for name, value in jwk.items() if name not in {"d", *RSA_PRIMES}}


@functools.cache
def weak(kind: str) -> JWK:
    """A private RSA JWK of 2048 bits whose numbers FIPS 186-5 forbids."""
    from_2048 = _key("RSA", 2048, 0).private_key.private_numbers()
    p, q, e = from_2048.p, from_2048.q, 65537
    match kind:
        case "small-exponent":
            e = 3
            p, q = _prime_from(p, e), _prime_from(q, e)
        case "even-exponent":
            return {**rsa(), "e": base64url((65538).to_bytes(3))}
        case "large-exponent":
            e = 2**33 + 17
            p, q = _prime_from(p, e), _prime_from(q, e)
        case "close-primes":
            q = _prime_from(p + 2, e)
        case "unequal-primes":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                small = _key("RSA", 1024, 0).private_key.private_numbers()
            large = _key("RSA", 3072, 0).private_key.private_numbers()
            p, q = large.p, small.q
        case "small-prime":
            p, q = _prime_from(5 * 2**1021 + 1, e), _prime_from(7 * 2**1021 + 1, e)
            assert (p * q).bit_length() == 2048
        case _:
            raise ValueError(kind)
    d = pow(e, -1, (p - 1) * (q - 1))
    numbers = {
        "n": p * q,
        "e": e,
        "d": d,
        "p": p,
        "q": q,
        "dp": d % (p - 1),
        "dq": d % (q - 1),
        "qi": pow(q, -1, p),
    }
    return {
        "kty": "RSA",
        **{name: base64url(value.to_bytes((value.bit_length() + 7) // 8)) for name, value in numbers.items()},
    }


def _prime_from(start: int, exponent: int) -> int:
    """The next prime whose predecessor has nothing in common with the exponent."""
    candidate = start | 1
    while not (
        all(candidate % small for small in range(3, 2000, 2))
        and pow(2, candidate - 1, candidate) == 1
        and math.gcd(candidate - 1, exponent) == 1
    ):
        candidate += 2
    return candidate


WEAK = {
    "small-exponent": "exponent",
    "even-exponent": "exponent",
    "large-exponent": "exponent",
    "close-primes": "close",
    "unequal-primes": "half as long",
    "small-prime": "too small",
}
"""Each kind, and a word of what is said about it."""


def of_kind(kind: str) -> Any:
    """The document that a recorded boot probe calls ``kind``."""
    makers: dict[str, Callable[[], Any]] = {
        "rsa_ok": lambda: {**rsa(), "kid": "k1", "alg": "RS256"},
        "rsa_nokid": rsa,
        "rsa_numkid": lambda: {**rsa(), "kid": 7},
        "rsa_objkid": lambda: {**rsa(), "kid": {"a": 1}},
        "rsa_kid_inject": lambda: {**rsa(), "kid": '"},"alg":"none","x":{"\r\nX-Injected: 1'},
        "rsa_public": lambda: {**public(rsa()), "kid": "k1"},
        "rsa_1024": lambda: {**rsa(1024), "kid": "k1"},
        "rsa_alg_mismatch": lambda: {**rsa(), "kid": "k1", "alg": "PS256"},
        "rsa_keyops_verify": lambda: {**rsa(), "kid": "k1", "key_ops": ["verify"]},
        "rsa_mixed": lambda: {**rsa(), "n": rsa(copy=1)["n"], "kid": "k1"},
        "rsa_only_d": lambda: {name: value for name, value in rsa().items() if name not in RSA_PRIMES},
        "ec_p256": lambda: {**ec(), "kid": "k1"},
        "ec_p384": lambda: {**ec("P-384"), "kid": "k1"},
        "ec_public": lambda: {**public(ec()), "kid": "k1"},
        "ed25519": lambda: dict(_key("OKP", "Ed25519", 0).as_dict(private=True)),
        "jwks": lambda: {"keys": [{**rsa(), "kid": "k1"}]},
        "array": lambda: [{**rsa(), "kid": "k1"}],
        "oct": lambda: dict(_key("oct", 256, 0).as_dict(private=True)),
    }
    return makers[kind]()
