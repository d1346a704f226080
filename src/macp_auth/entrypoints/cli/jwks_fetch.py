"""Fetches a JWK Set as a verifier does; errors name the remedy."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from macp_auth.adapters.blocking_call import BlockingCall
from macp_auth.adapters.input_file import Custody, FileUnusable, InputFile
from macp_auth.entrypoints.cli.runtime_keys import PublishedKey, read_jwks
from macp_auth.entrypoints.server.listening import is_loopback

_FETCH_SECONDS = 5
_PATH = "the path is /.well-known/jwks.json"
_MAX_BYTES = 2**20
_NO_JWKS = f"the response is not a JWK Set with a key; {_PATH}"
_CAUSES: list[tuple[type[Exception], str]] = [
    (ConnectionRefusedError, "connection refused; start the service, or correct the host and the port"),
    (ConnectionError, "connection closed by the server; is it https://?"),
    (http.client.HTTPException, "the response is not HTTP; is it https://?"),
    (socket.gaierror, "cannot resolve the host; correct it, or check DNS"),
    (TimeoutError, f"no response within {_FETCH_SECONDS} s; check the port, the proxy and the firewall"),
]


class JWKSUnreachable(Exception):
    """The JWK Set cannot be fetched or read; the text names the remedy."""


def fetch_jwks(url: str, authorities: Path | None = None) -> Sequence[PublishedKey]:
    """Return the published keys, as the MACP runtime reads them.

    ``authorities`` is a PEM file of CA certificates; None for the system's.

    Raises:
        JWKSUnreachable: there is no usable response.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise JWKSUnreachable("the URL must begin with http:// or https://")
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=_trusting(authorities))]
    try:
        if is_loopback(urllib.parse.urlsplit(url).hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))  # a proxy would use its own loopback
        # The opener's timeout is per read: a server could send one byte at a time for days.
        return read_jwks(BlockingCall(partial(_download, url, handlers), "jwks-fetch").result(_FETCH_SECONDS))
    except (OSError, http.client.HTTPException) as error:
        raise JWKSUnreachable(f"{url}: {_why(error)}") from error
    except ValueError:  # of the URL or of the document
        raise JWKSUnreachable(f"{url}: {_NO_JWKS}") from None


def _download(url: str, handlers: Sequence[urllib.request.BaseHandler]) -> bytes:
    with urllib.request.build_opener(*handlers).open(url, timeout=_FETCH_SECONDS) as response:
        content: bytes = response.read(_MAX_BYTES)
        return content


def _trusting(authorities: Path | None) -> ssl.SSLContext:
    try:
        pem = None if authorities is None else InputFile(authorities, Custody.PUBLIC, _MAX_BYTES).read().data
        # An empty string would select the system's authorities.
        context = ssl.create_default_context(
            cadata=None if pem is None else pem.decode("ascii", "replace") or "-"
        )
    except FileUnusable as error:
        raise JWKSUnreachable(f"{authorities} {error}") from None
    except (OSError, ValueError):
        raise JWKSUnreachable(f"{authorities} must be a PEM file of certificates") from None
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # set by Python 3.13, not by curl
    return context


def _why(error: OSError | http.client.HTTPException) -> str:
    match error:
        case urllib.error.HTTPError(code=code):
            return f"the response status is {code}; {_PATH}"
        case urllib.error.URLError(reason=OSError() as reason):
            return _why(reason)
        case ssl.SSLCertVerificationError(verify_message=why):
            return f"the certificate is not trusted ({why}); pass the file of its CA with --cacert"
        case ssl.SSLError(reason=why):
            return f"TLS handshake failed ({why}); is it http://?"
    known = (text for kind, text in _CAUSES if isinstance(error, kind))
    return next(known, f"{error}; correct the host and the port")
