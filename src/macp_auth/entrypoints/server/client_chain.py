"""The client certificate of a TLS connection, and when it expires."""

from __future__ import annotations

import _ssl
import math
import ssl
from typing import Any

from cryptography import x509


def tls_extension(connection: ssl.SSLObject) -> dict[object, Any]:
    """Return ASGI's TLS extension for ``connection``, with one more member, ``client_cert_ends``.

    It is the earliest expiry in the verified chain, in seconds since the epoch; infinite without a client
    certificate.
    """
    certificate = connection.getpeercert(binary_form=True)
    if certificate is None:
        return {"client_cert_chain": [], "client_cert_ends": math.inf}
    ends = (x509.load_der_x509_certificate(der).not_valid_after_utc for der in _verified_chain(connection))
    return {
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(certificate)],
        "client_cert_ends": min(ends).timestamp(),
    }


def _verified_chain(connection: ssl.SSLObject) -> list[bytes]:
    if hasattr(connection, "get_verified_chain"):  # Python 3.13
        return list(connection.get_verified_chain())
    chain = connection._sslobj.get_verified_chain()  # type: ignore[attr-defined]  # noqa: SLF001 - public from 3.13 on
    return [each.public_bytes(_ssl.ENCODING_DER) for each in chain]
