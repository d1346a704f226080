"""JWKs in and out, judged by joserfc."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import joserfc.jwk
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from joserfc import jws

from macp_auth import public_jwk, raw_ecdsa_signature
from macp_auth.adapters import jose
from macp_auth.domain.encoding import base64url
from macp_auth.domain.keys import Algorithm, thumbprint
from tests.support import jwks

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize("algorithm", Algorithm)
def test_generated_key_is_readable_elsewhere(algorithm: Algorithm) -> None:
    """Another library imports the private JWK and verifies what the key signed."""
    key = jose.generate(algorithm)
    theirs = joserfc.jwk.import_key(dict(jose.private_jwk(key)))
    header = base64url(f'{{"alg":"{algorithm}"}}'.encode())
    signing_input = f"{header}.{base64url(b'{}')}".encode()
    token = f"{signing_input.decode()}.{base64url(jose.sign(key, signing_input))}"
    assert jws.deserialize_compact(token, theirs, algorithms=[algorithm.value]).payload == b"{}"


@pytest.mark.parametrize("make", [jwks.rsa, jwks.ec])
def test_foreign_key_survives_the_round_trip(make: Any) -> None:
    """What joserfc made is read and written back unchanged."""
    jwk = make()
    key = jose.load(jwk)
    assert isinstance(key, jose.PrivateKey)
    assert jose.private_jwk(jose.from_der(jose.to_der(key))) == {
        name: jwk[name] for name in jose.private_jwk(key)
    }


def test_rsa_key_without_primes() -> None:
    """RFC 7518, section 6.3.2 lets a producer leave the primes out; they are found again."""
    key = jose.load(jwks.of_kind("rsa_only_d"))
    assert isinstance(key, jose.PrivateKey)
    assert jose.verifies(key.public_key(), b"x", jose.sign(key, b"x"))


def test_coordinates_keep_leading_zeros() -> None:
    """A coordinate is 32 octets even where its number is shorter (RFC 7518, section 6.2.1.2)."""
    for scalar in range(1, 2000):
        key = ec.derive_private_key(scalar, ec.SECP256R1())
        jwk = jose.private_jwk(key)
        if jwk["x"].startswith("AA") or jwk["y"].startswith("AA"):
            break
    else:
        pytest.fail("no such key among the first 2000")
    assert len(jwk["x"]) == len(jwk["y"]) == len(jwk["d"]) == 43
    assert joserfc.jwk.ECKey.import_key(dict(jwk)).thumbprint() == thumbprint(
        jose.public_jwk(key.public_key())
    )


def test_es256_signature_is_always_64_octets() -> None:
    """R and S are padded: about one signature in 128 has a leading zero in one of them."""
    key = jose.generate(Algorithm.ES256)
    signatures = [jose.sign(key, str(number).encode()) for number in range(3000)]
    assert {len(signature) for signature in signatures} == {64}
    assert any(signature[0] == 0 or signature[32] == 0 for signature in signatures)
    assert all(jose.verifies(key.public_key(), str(n).encode(), s) for n, s in enumerate(signatures))


def test_raw_ecdsa_signature_keeps_leading_zeros() -> None:
    """R and S are 32 bytes each, however short the numbers are."""
    raw = raw_ecdsa_signature(encode_dss_signature(1, 2**255))
    assert raw == bytes(31) + b"\1" + b"\x80" + bytes(31)


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\0" * 64,
        encode_dss_signature(2**256, 1),
        encode_dss_signature(1, 1) + b"\0",
        b"0\6\2\1\xff\2\1\1",
    ],
)
def test_what_is_no_p256_signature_is_refused(der: bytes) -> None:
    """Nothing, no DER, one of a larger curve, one with bytes behind it, and a negative number."""
    with pytest.raises(ValueError, match="not a P-256 signature in DER"):
        raw_ecdsa_signature(der)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_public_jwk_is_that_of_another_library(algorithm: Algorithm) -> None:
    """A public key that was read from DER, as backends give it."""
    key = jose.generate(algorithm).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    theirs = joserfc.jwk.import_key(der, "RSA" if algorithm is Algorithm.RS256 else "EC")
    assert thumbprint(public_jwk(load_der_public_key(der))) == theirs.thumbprint()


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()]
)
def test_public_jwk_of_another_kind_of_key_is_refused(key: Any) -> None:
    """The runtime verifies with RSA and P-256 only."""
    with pytest.raises(ValueError, match="neither RSA nor on P-256"):
        public_jwk(key.public_key())


@pytest.mark.parametrize("algorithm", Algorithm)
def test_altered_signatures_do_not_verify(algorithm: Algorithm) -> None:
    key = jose.generate(algorithm)
    good = jose.sign(key, b"x")
    for bad in (
        b"",
        good[:-1],
        good + b"\0",
        bytes([good[0] ^ 1]) + good[1:],
        b"\0" * len(good),
        b"\xff" * len(good),
    ):
        assert not jose.verifies(key.public_key(), b"x", bad)
    assert not jose.verifies(key.public_key(), b"y", good)


def _with(jwk: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**jwk, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("jwk", "message"),
    [
        (dict, "kty is missing"),
        (lambda: _with(jwks.rsa(), kty="rsa"), "kty is neither"),
        (lambda: jwks.of_kind("oct"), "shared secret"),
        (lambda: jwks.of_kind("ed25519"), "kty is neither"),
        (lambda: jwks.rsa(1024), "1024 bits"),
        (lambda: _with(jwks.public(jwks.rsa()), n=jwks.rsa(1024)["n"]), "1024 bits"),
        (lambda: _with(jwks.rsa(), n=base64url(b"\xff" * 1025)), "8200 bits; the most is 8192"),
        (lambda: _with(jwks.rsa(), n=None), "n is missing"),
        (lambda: _with(jwks.rsa(), e=3), "e is missing or not a string"),
        (lambda: _with(jwks.rsa(), e="AQAB=="), "e is not base64url"),
        (lambda: _with(jwks.rsa(), e="AQ+B"), "e is not base64url"),
        (lambda: _with(jwks.rsa(), e="AQ B"), "e is not base64url"),
        (lambda: _with(jwks.rsa(), e="Ag"), "exponent"),
        (lambda: _with(jwks.public(jwks.rsa()), e="Ag"), "exponent"),
        (lambda: _with(jwks.rsa(), p=None), "p is missing"),
        (lambda: _with(jwks.rsa(), oth=[]), "two primes"),
        (lambda: _with(jwks.rsa(), n=jwks.rsa(copy=1)["n"]), "contradict"),
        (lambda: _with(jwks.rsa(), d=jwks.rsa(copy=1)["d"]), "contradict"),
        (lambda: _with(jwks.of_kind("rsa_only_d"), d=jwks.rsa(copy=1)["d"]), "contradict"),
        (lambda: jwks.ec("P-384"), "crv"),
        (lambda: jwks.ec("secp256k1"), "crv"),
        (lambda: _with(jwks.ec(), d=jwks.ec(copy=1)["d"]), "contradict"),
        (lambda: _with(jwks.ec(), x=jwks.ec(copy=1)["x"]), "contradict"),
        (lambda: _with(jwks.public(jwks.ec()), x=jwks.ec(copy=1)["x"]), "contradict"),
        (lambda: _with(jwks.ec(), x=urlsafe_b64encode(b"x" * 31).rstrip(b"=").decode()), "31 octets"),
        (lambda: _with(jwks.ec(), d=base64url(b"\0" * 32)), "contradict"),
        (lambda: _with(jwks.ec(), d=base64url(P256_ORDER.to_bytes(32))), "contradict"),
        (lambda: _with(jwks.rsa(), alg="RS512"), "alg contradicts"),
        (lambda: _with(jwks.rsa(), alg="ES256"), "alg contradicts"),
        (lambda: _with(jwks.ec(), alg="RS256"), "alg contradicts"),
        (lambda: _with(jwks.rsa(), use="enc"), "use is not"),
    ],
)
def test_unusable_jwks(jwk: Any, message: str) -> None:
    """Each is refused for its own reason, without a member's content in the message."""
    document = jwk()
    with pytest.raises(jose.InvalidJWK, match=message) as refused:
        jose.load(document)
    for value in document.values():
        assert not (isinstance(value, str) and len(value) > 16 and value in str(refused.value))


@pytest.mark.parametrize(("kind", "message"), jwks.WEAK.items())
def test_weak_rsa_keys(kind: str, message: str) -> None:
    """The checks of FIPS 186-5, appendix A.1.1, and the largest exponent that the runtime's library reads."""
    document = jwks.weak(kind)
    with pytest.raises(jose.InvalidJWK, match=message) as refused:
        jose.load(document)
    assert not [value for value in document.values() if len(value) > 16 and value in str(refused.value)]


@pytest.mark.parametrize("kind", ["small-exponent", "large-exponent", "close-primes"])
def test_weak_public_keys(kind: str) -> None:
    """What shows in the public half alone, of a key that another backend holds."""
    with pytest.raises(jose.InvalidJWK):
        jose.load(jwks.public(jwks.weak(kind)))


def test_a_modulus_with_a_small_factor() -> None:
    modulus = int.from_bytes(urlsafe_b64decode(jwks.rsa()["n"] + "==")) // 751 * 751 | 1
    while modulus % 751:
        modulus += 2
    document = {**jwks.public(jwks.rsa()), "n": base64url(modulus.to_bytes(256))}
    with pytest.raises(jose.InvalidJWK, match="small factor"):
        jose.load(document)


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_strong_rsa_keys(bits: int) -> None:
    """Keys as they are made everywhere pass all of it."""
    assert isinstance(jose.load(jwks.rsa(bits)), jose.PrivateKey)


@pytest.mark.parametrize(
    ("key_ops", "may"),
    [(["sign"], True), (["verify", "sign"], True), (["verify"], False), ([], False), ("sign", False)],
)
def test_key_ops(key_ops: object, may: bool) -> None:  # noqa: FBT001 - a table's column
    """A key that says what it is for is taken at its word (RFC 7517, section 4.3)."""
    assert jose.may_sign({"key_ops": key_ops}) is may
    assert jose.may_sign({})
