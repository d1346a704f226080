"""Keys from the environment variable: one, or a set."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest

from macp_auth.adapters.signers.env_jwk import EnvJWKSettings, prepare
from macp_auth.adapters.signers.local import LocalKey
from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.secret import Secret
from tests.support import jwks


def prepared(document: Any, **settings: Any) -> list[LocalKey]:
    text = document if isinstance(document, str) else json.dumps(document)
    return prepare(EnvJWKSettings(signing_key_json=Secret(text), **settings))


def signing(keys: list[LocalKey]) -> list[str]:
    return [key.version.kid for key in keys if key.version.can_sign]


RSA = {**jwks.rsa(), "kid": "r"}
EC = {**jwks.ec(), "kid": "e"}
NESTED = "[" * 100_000
OLD = {**jwks.public(jwks.ec(copy=1)), "kid": "old"}


def test_single_key_without_kid() -> None:
    """It gets the kid that the reference service gives."""
    (key,) = prepared(jwks.rsa())
    assert (key.version.kid, key.version.algorithm, key.version.can_sign) == ("key-1", Algorithm.RS256, True)


def test_first_private_key_of_a_set_signs() -> None:
    """Every key is published; public-only keys never sign, wherever they stand."""
    keys = prepared({"keys": [OLD, EC, RSA]})
    assert [key.version.kid for key in keys] == ["old", "e", "r"]
    assert signing(keys) == ["e"]
    assert [key.version.kid for key in keys if key.private_der] == ["e"], (
        "only the signing key's half is kept"
    )


def test_kid_chooses_the_signing_key() -> None:
    assert signing(prepared({"keys": [OLD, EC, RSA]}, signing_kid="r")) == ["r"]


def test_key_ops_are_heeded() -> None:
    """A private key for verification only is published, and does not sign."""
    assert signing(prepared({"keys": [{**EC, "key_ops": ["verify"]}, RSA]})) == ["r"]


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
def test_algorithm_is_the_keys_own(key: dict[str, Any]) -> None:
    """Unset, the algorithm variable follows the key; set, it must agree."""
    (only,) = prepared(key)
    other = {Algorithm.RS256, Algorithm.ES256} - {only.version.algorithm}
    assert prepared(key, signing_alg=only.version.algorithm)
    with pytest.raises(SignerMisconfigured, match="MACP_AUTH_SIGNING_ALG"):
        prepared(key, signing_alg=other.pop())


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        (NESTED, "not valid JSON"),
        ('{"kty":"RSA","kty":"EC"}', "not valid JSON"),
        ("null", "must be a JSON object"),
        ("5", "must be a JSON object"),
        ([RSA], "must be a JSON object"),
        ({"keys": []}, "at least one"),
        ({"keys": {}}, "at least one"),
        ({"keys": [RSA, "x"]}, "at least one"),
        ({"keys": [RSA, jwks.of_kind("oct")]}, "key 2 of 2: kty is 'oct'"),
        ({"keys": [OLD]}, "no private key"),
        ({"keys": [RSA, {**EC, "kid": "r"}]}, "same kid"),
        ({"keys": [jwks.rsa(), jwks.ec()]}, "same kid"),
        ({**RSA, "kid": ""}, "kid must be"),
        ({**RSA, "kid": None}, "kid must be"),
        ({**RSA, "kid": "k" * 257}, "kid must be"),
        ({**RSA, "kid": "\ud800"}, "kid must be"),
        ({**RSA, "key_ops": ["verify"]}, "no private key"),
    ],
)
def test_unusable_documents(document: Any, message: str) -> None:
    """The message names the variable and the fault."""
    if document == NESTED:
        gc.collect()  # a finalizer of other tests that ran where nesting has used the stack up would fail
    with pytest.raises(SignerMisconfigured, match=message) as refused:
        prepared(document)
    assert "MACP_AUTH_SIGNING_KEY_JSON" in str(refused.value)


def test_unknown_signing_kid() -> None:
    with pytest.raises(SignerMisconfigured, match="MACP_AUTH_SIGNING_KID names no private key"):
        prepared({"keys": [RSA, OLD]}, signing_kid="old")


def test_nothing_secret_in_reprs() -> None:
    """Settings and prepared keys can be logged by mistake without harm."""
    settings = EnvJWKSettings(signing_key_json=Secret(json.dumps(RSA)))
    shown = repr(settings) + repr(prepare(settings)) + str(settings)
    for member in ("d", *jwks.RSA_PRIMES):
        assert RSA[member] not in shown
    assert b"PRIVATE" not in shown.encode()
    assert "b'" not in shown
