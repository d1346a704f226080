"""Certificate authorities of a test's own, and certificates from them."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Struct

_DAY = dt.timedelta(days=1)
_LOOPBACK = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


class Pair(Struct, frozen=True):
    """PEM files: a certificate, and its private key."""

    certificate: Path
    key: Path

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.certificate.read_bytes()).serial_number

    def replace(self, other: Pair) -> None:
        """Put the content of ``other`` into these files, as a careful administrator does: by renaming."""
        for mine, theirs in ((self.certificate, other.certificate), (self.key, other.key)):
            fresh = mine.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_bytes(theirs.read_bytes())
            fresh.replace(mine)


class Certificates(Struct, frozen=True):
    """PEM files: of the authority, and of a server on loopback."""

    ca: Path
    certificate: Path
    key: Path

    @property
    def pair(self) -> Pair:
        """The server's."""
        return Pair(self.certificate, self.key)


class Authority:
    """An authority, whose certificate is in a file.

    Args:
        directory: where its files go.
        name: what it is called.
        vouched_for_by: another authority; it is an intermediate one then.
    """

    def __init__(self, directory: Path, name: str = "ca", vouched_for_by: Authority | None = None) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} of the tests")])
        issuer = vouched_for_by or self
        certificate = (
            _certificate(self._name, self._key.public_key(), issuer._name)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer._key.public_key()), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_CA_USAGE, critical=True)
            .sign(issuer._key, hashes.SHA256())
        )
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(  # noqa: PLR0913 - what a certificate says
        self,
        name: str,
        common_name: str = "localhost",
        *,
        lives: dt.timedelta = _DAY,
        lived: dt.timedelta = _DAY,
        names: Sequence[x509.GeneralName] = _LOOPBACK,
        groups: Sequence[str] = (),
    ) -> Pair:
        """Make a certificate for 127.0.0.1 and localhost, for a client on them, or for ``names``.

        It has been good for ``lived``, and is for ``lives``. Its subject is ``common_name`` in ``groups``.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups),
                x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            ]
        )
        certificate = (
            _certificate(subject, key.public_key(), self._name, lives, lived)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.key.touch(mode=0o600)
        pair.key.write_bytes(private_pem(key))
        return pair


def make_certificates(directory: Path) -> Certificates:
    """Make an authority, and with it a certificate for 127.0.0.1 and localhost."""
    authority = Authority(directory)
    server = authority.issue("server")
    return Certificates(authority.path, server.certificate, server.key)


def private_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    protection = (
        serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password)
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _certificate(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    lives: dt.timedelta = _DAY,
    lived: dt.timedelta = _DAY,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - lived)
        .not_valid_after(now + lives)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
