"""The client certificate of a TLS connection."""

from __future__ import annotations

import _ssl
import ssl

from cryptography import x509

from macp_auth.domain.callers import ClientCertificate

_UNREADABLE = (
    ValueError,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,  # an X.400 address or an EDI party name, in any extension
)


def client_certificate(connection: ssl.SSLObject) -> ClientCertificate | None:
    """Return what the client's certificate says; None if the client presented none."""
    if connection.getpeercert(binary_form=True) is None:
        return None
    chain = [x509.load_der_x509_certificate(der) for der in _verified_chain(connection)]
    uris, dns_names = names_of(chain[0])
    return ClientCertificate(uris, dns_names, min(each.not_valid_after_utc for each in chain).timestamp())


def names_of(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the URIs and the DNS names among the subject alternative names.

    There are none if they can't be read, or if the certificate may sign others: an authority is no workload
    (X509-SVID, section 5.2).
    """
    try:
        if _may_sign(certificate.extensions):
            return (), ()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except _UNREADABLE:
        return (), ()
    return (
        tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
        tuple(names.get_values_for_type(x509.DNSName)),
    )


def _may_sign(extensions: x509.Extensions) -> bool:
    for extension in extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True) | x509.KeyUsage(key_cert_sign=True):
                return True
    return False


def _verified_chain(connection: ssl.SSLObject) -> list[bytes]:
    if hasattr(connection, "get_verified_chain"):  # Python 3.13
        return list(connection.get_verified_chain())
    chain = connection._sslobj.get_verified_chain()  # type: ignore[attr-defined]  # noqa: SLF001 - public from 3.13 on
    return [each.public_bytes(_ssl.ENCODING_DER) for each in chain]
