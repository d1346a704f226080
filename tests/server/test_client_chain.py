"""What a client certificate says."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from macp_auth.entrypoints.server.client_chain import names_of

ID = "spiffe://example.org/ns/macp/sa/playground"
NAMES = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(ID), x509.DNSName("a.example")])


def certificate(*extensions: x509.ExtensionType) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(hours=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


def usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@pytest.mark.parametrize(
    "extensions",
    [[], [x509.BasicConstraints(ca=False, path_length=None)], [usage(key_cert_sign=False)]],
)
def test_a_workload_has_its_names(extensions: list[x509.ExtensionType]) -> None:
    assert names_of(certificate(NAMES, *extensions)) == ((ID,), ("a.example",))


@pytest.mark.parametrize(
    "extension", [x509.BasicConstraints(ca=True, path_length=None), usage(key_cert_sign=True)]
)
def test_an_authority_has_none(extension: x509.ExtensionType) -> None:
    """X509-SVID, section 5.2: a certificate that may sign others is not a workload's."""
    assert names_of(certificate(NAMES, extension)) == ((), ())


def test_a_certificate_without_names() -> None:
    assert names_of(certificate()) == ((), ())


@pytest.mark.parametrize("name", [b"\xa3\x02\x30\x00", b"\xa5\x05\xa1\x03\x0c\x01a", b"\x87\x01\x00"])
def test_names_that_cannot_be_read(name: bytes) -> None:
    """An X.400 address, an EDI party name and half an IP address are no reason to end the connection."""
    octets = b"\x86" + bytes([len(ID)]) + ID.encode() + name
    names = x509.UnrecognizedExtension(NAMES.oid, b"\x30" + bytes([len(octets)]) + octets)
    assert names_of(certificate(names)) == ((), ())
