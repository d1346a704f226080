"""``example``: one P-256 key from a PEM file.

Settings:
    ``MACP_AUTH_EXAMPLE_KEY_FILE``  the path of the private key: PKCS #8 in PEM, without a passphrase.
Privileges: to read that file, once. No other user may read it.
Fails: at start-up, if there is no such key. Never later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from macp_auth import (
    Algorithm,
    KeyVersion,
    Secret,
    Signer,
    SignerMisconfigured,
    SignerPlugin,
    SignerUnavailable,
    UnknownKid,
    hookimpl,
    public_jwk,
    raw_ecdsa_signature,
    read_private_file,
    thumbprint,
)
from msgspec import Meta, Struct


class ExampleSettings(Struct, frozen=True):
    """The settings: each field is a variable, which the host reads and checks."""

    key_file: Annotated[
        str,
        Meta(
            min_length=1,
            description="The private key's path.",
            extra={"expects": "the path of a P-256 private key in PEM"},
        ),
    ]


def prepare(settings: ExampleSettings) -> Secret[bytes]:
    """Read the file before anything listens; every worker process gets the returned value.

    Raises:
        SignerMisconfigured: there is no such key, or others can read or change the file; the text names the
            variable, and shows nothing of the file.
    """
    try:
        pem = read_private_file(settings.key_file, "MACP_AUTH_EXAMPLE_KEY_FILE", max_bytes=10_000)
        load(pem)
    except SignerUnavailable as error:
        raise SignerMisconfigured(str(error)) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SignerMisconfigured(
            "MACP_AUTH_EXAMPLE_KEY_FILE must be a P-256 private key in PEM without a passphrase; "
            "create one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
        ) from None
    return Secret(pem)


def load(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the private key.

    Raises:
        ValueError, TypeError, UnsupportedAlgorithm: it is not a P-256 key, or needs a passphrase.
    """
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TypeError("another kind of key")
    return key


class ExampleSigner(Signer):
    """Signs with the one key. Each worker opens its own from the result of ``prepare``."""

    def __init__(self, pem: Secret[bytes]) -> None:
        self._key: ec.EllipticCurvePrivateKey | None = load(pem.reveal())
        jwk = public_jwk(self._key.public_key())
        # A thumbprint is the best kid: no two keys share one, and every worker computes the same.
        self._version = KeyVersion(
            kid=thumbprint(jwk), algorithm=Algorithm.ES256, public_jwk=jwk, can_sign=True
        )

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return the one version. Called periodically; a backend that rotates reads its keys here."""
        return [self._version]

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Sign with exactly this version. May block, but then other calls wait."""
        if self._key is None:
            raise SignerUnavailable("the signer is closed", reason="closed")
        if kid != self._version.kid:
            raise UnknownKid(kid)
        return raw_ecdsa_signature(self._key.sign(signing_input, ec.ECDSA(SHA256())))

    async def aclose(self) -> None:
        """Drop the key. May be called more than once."""
        self._key = None


@hookimpl
def macp_auth_signer() -> SignerPlugin:
    """Register the signer: the host finds this function through the entry point."""
    return SignerPlugin(
        name="example",
        api_version=1,
        settings=ExampleSettings,
        settings_prefix="MACP_AUTH_EXAMPLE_",
        prepare=prepare,
        open=ExampleSigner,
    )
