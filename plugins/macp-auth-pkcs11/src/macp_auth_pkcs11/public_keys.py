"""Finds the public key of a private key on the token, and verifies that they belong together.

Public keys and certificates can be written to a token without its PIN (PKCS#11 v2.40, section 2.6: a
public session may write public objects). If one were published unverified, its author could forge tokens.
So a public key is used only if it verifies a signature of the private key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.exceptions import AttributeSensitive, AttributeTypeInvalid, FunctionFailed
from pkcs11.types import Object, Session, SignMixin

from macp_auth import PublicJWK, public_jwk

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_P256_BYTES = 32
_P256_POINT_BYTES = 65
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")  # SHA-256 (RFC 8017, section 9.2)
_PREHASHED = Prehashed(SHA256())
_PROBE_INPUT = hashlib.sha256(b"macp-auth-pkcs11: is this the public key?").digest()


def sign_digest(key: SignMixin, digest: bytes) -> bytes:
    """Return the raw JWS signature over a SHA-256 ``digest`` (RFC 7518, sections 3.3 and 3.4).

    The token gets the digest, not the message: fewer bytes, and mechanisms that every token has.

    Raises:
        PKCS11Error: the token did not sign.
    """
    if key.key_type is KeyType.RSA:
        return key.sign(_DIGEST_INFO + digest, mechanism=Mechanism.RSA_PKCS)
    return key.sign(digest, mechanism=Mechanism.ECDSA)  # returns R, then S


def verified_jwk(session: Session, key: SignMixin) -> PublicJWK | None:
    """Return the public key of ``key``; None if the token has none that verifies its signature.

    Raises:
        PKCS11Error: the token did not answer, or did not sign.
    """
    signature = sign_digest(key, _PROBE_INPUT)
    candidates = _candidates(session, key)
    return next((public_jwk(public) for public in candidates if _verifies(public, signature)), None)


def _candidates(session: Session, key: SignMixin) -> Iterator[PublicKey]:
    """Yield candidates: the numbers of the private object, public keys, and certificates."""
    same_id = {Attribute.ID: key[Attribute.ID]}
    public_keys = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: key.key_type, **same_id}
    certificates = {Attribute.CLASS: ObjectClass.CERTIFICATE, **same_id}
    # Each search must end before the next operation: a session does one thing at a time.
    for found in (key, *session.get_objects(public_keys), *session.get_objects(certificates)):
        # Tokens have three errors for a missing attribute.
        with suppress(
            AttributeTypeInvalid, AttributeSensitive, FunctionFailed, ValueError, UnsupportedAlgorithm
        ):
            public = _read(found)
            if isinstance(public, rsa.RSAPublicKey) or (
                isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)
            ):
                yield public


def _read(found: Object) -> object:
    """Return the public key in ``found``, of any type.

    Raises:
        ValueError: it has none of a known type.
        PKCS11Error: it lacks an attribute, or the token did not answer.
    """
    if found[Attribute.CLASS] is ObjectClass.CERTIFICATE:
        return x509.load_der_x509_certificate(found[Attribute.VALUE]).public_key()
    if found[Attribute.KEY_TYPE] is KeyType.RSA:
        n, e = found[Attribute.MODULUS], found[Attribute.PUBLIC_EXPONENT]
        return rsa.RSAPublicNumbers(int.from_bytes(e), int.from_bytes(n)).public_key()
    # By the standard an OCTET STRING, with some tokens the bare point; both end with the point.
    # A point of another curve raises ValueError.
    point = found[Attribute.EC_POINT][-_P256_POINT_BYTES:]
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)


def _verifies(public: PublicKey, signature: bytes) -> bool:
    try:
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, _PROBE_INPUT, padding.PKCS1v15(), _PREHASHED)
        else:
            r, s = int.from_bytes(signature[:_P256_BYTES]), int.from_bytes(signature[_P256_BYTES:])
            public.verify(encode_dss_signature(r, s), _PROBE_INPUT, ec.ECDSA(_PREHASHED))
    except InvalidSignature:
        return False
    return True
