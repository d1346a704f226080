"""Keys of every kind, good and bad, made when the tests run."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from joserfc.jwk import ECKey, JWKRegistry, OctKey, OKPKey, RSAKey

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
