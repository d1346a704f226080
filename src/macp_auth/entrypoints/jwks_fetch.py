"""Fetches a JWK Set as a verifier does, and says what mends it if there is none."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from macp_auth.entrypoints.runtime_keys import PublishedKey, read_jwks

_FETCH_SECONDS = 5
_PATH = "the path is /.well-known/jwks.json"
_MAX_BYTES = 2**20
_NO_JWKS = f"the answer is no JWK Set with a key; {_PATH}"
_CAUSES: list[tuple[type[Exception], str]] = [
    (ConnectionRefusedError, "nothing listens there; start the service, or mend the host and the port"),
    (ConnectionError, "the connection was cut; is it https://?"),
    (http.client.HTTPException, "the server speaks no HTTP there; is it https://?"),
    (socket.gaierror, "the name has no address; mend the host, or look at DNS"),
    (TimeoutError, f"no answer within {_FETCH_SECONDS} s; look at the port, the proxy and the firewall"),
]


class JWKSUnreachable(Exception):
    """The JWK Set can't be fetched or read."""


def fetch_jwks(url: str, authorities: Path | None = None) -> Sequence[PublishedKey]:
    """Return the published keys, as the MACP runtime reads them.

    ``authorities`` is a PEM file of those that vouch for the server; None for the system's.

    Raises:
        JWKSUnreachable: there is no usable answer; the text says what mends it.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise JWKSUnreachable("the URL must begin with http:// or https://")
    try:
        trusted = ssl.create_default_context(cafile=authorities)
        trusted.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python's since 3.13, and not that of curl
    except OSError:
        raise JWKSUnreachable(f"{authorities} must be a PEM file of certificates") from None
    try:
        with urllib.request.urlopen(url, timeout=_FETCH_SECONDS, context=trusted) as response:  # noqa: S310 - see above
            document = response.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise JWKSUnreachable(f"{url}: {_why(error)}") from error
    except ValueError:  # of the URL
        raise JWKSUnreachable(f"{url}: {_NO_JWKS}") from None
    try:
        return read_jwks(document)
    except ValueError:
        raise JWKSUnreachable(f"{url}: {_NO_JWKS}") from None


def _why(error: OSError | http.client.HTTPException) -> str:
    match error:
        case urllib.error.HTTPError(code=code):
            return f"the answer is {code}; {_PATH}"
        case urllib.error.URLError(reason=OSError() as reason):
            return _why(reason)
        case ssl.SSLCertVerificationError(verify_message=why):
            return f"the certificate is not trusted ({why}); name the file of its authority with --cacert"
        case ssl.SSLError(reason=why):
            return f"no TLS handshake ({why}); is it http://?"
    known = (text for kind, text in _CAUSES if isinstance(error, kind))
    return next(known, f"{error}; mend the host and the port")
