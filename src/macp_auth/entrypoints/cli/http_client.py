"""Sends the HTTP requests of commands; errors name the remedy."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from macp_auth.adapters.blocking_call import BlockingCall
from macp_auth.adapters.input_file import Content, Custody, FileUnusable, InputFile, Risk
from macp_auth.domain.visible import is_visible
from macp_auth.entrypoints.server.listening import is_loopback

_MAX_BYTES = 2**20
_WHY_CLOSED = {
    "http": "is it https://?",
    "https": "is it http://, or does it not trust the client certificate?",
}
_CAUSES: list[tuple[type[Exception], str]] = [
    (ConnectionRefusedError, "connection refused; start the service, or correct the host and the port"),
    (ConnectionError, "connection closed by the server; {why}"),
    (ssl.SSLEOFError, "connection closed by the server; {why}"),
    (http.client.InvalidURL, "the URL is malformed"),
    (http.client.HTTPException, "the response is not HTTP; {why}"),
    (socket.gaierror, "cannot resolve the host; correct it, or check DNS"),
    (TimeoutError, "no response within {seconds} s; check the port, the proxy and the firewall"),
]


class Unreachable(Exception):
    """A server can't be asked; the text names the remedy."""


class Answer(Struct, frozen=True):
    """What a server answers."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    """At most 1 MiB; the rest is cut off."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an answer like any other, also one whose ``Location`` is malformed."""

    def http_error_302(self, *_: Any, **__: Any) -> None:
        """Follow none."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def split(url: str) -> urllib.parse.SplitResult:
    """Return the parts of ``url``, which is for HTTP.

    Raises:
        Unreachable: it is malformed, for another protocol, or contains a user name.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        is_valid = is_visible(url) and parts.port != 0
    except ValueError:  # that of a port over 65535, too
        is_valid = False
    if not is_valid:
        raise Unreachable("the URL is malformed")
    if parts.scheme not in {"http", "https"}:
        raise Unreachable("the URL must begin with http:// or https://")
    if not parts.hostname:
        raise Unreachable("the URL must name a host")
    if parts.username is not None:
        raise Unreachable("the URL must not contain a user name or a password")
    return parts


def exchange(
    url: str,
    tls: ssl.SSLContext,
    seconds: int,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Return the answer to a GET, or to a POST of ``body``, whatever its status.

    A redirect of a GET is followed. That of a POST is the answer, so that no other host gets its credential.

    Args:
        url: where to send it.
        tls: for https.
        seconds: how long to wait.
        body: of a POST; None for a GET.
        headers: of the request.

    Raises:
        Unreachable: there is no answer.
    """
    parts = split(url)
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=tls)]
    if body is not None:
        handlers.append(_NoRedirects())
    if is_loopback(parts.hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))  # a proxy would use its own loopback
    try:
        request = urllib.request.Request(url, body, dict(headers or {}))  # noqa: S310 - split() checks the scheme
        # The opener's timeout is per read: a server could send one byte at a time for days.
        return BlockingCall(partial(_send, request, handlers, seconds), "http").result(seconds)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{url}: {_why(error, parts.scheme, seconds)}{_proxy(parts)}") from error
    except ValueError:
        raise Unreachable(f"{url}: the URL is malformed{_proxy(parts)}") from None


def _proxy(parts: urllib.parse.SplitResult) -> str:
    """Return a note if a request goes through a proxy, which may be the cause of a failure."""
    host = parts.hostname or ""
    name = f"{parts.scheme}_proxy"
    proxied = parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
    return f" (through the proxy of {name})" if proxied and not is_loopback(host) else ""


def _send(
    request: urllib.request.Request, handlers: Sequence[urllib.request.BaseHandler], seconds: int
) -> Answer:
    try:
        response = urllib.request.build_opener(*handlers).open(request, timeout=seconds)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, headers, response.read(_MAX_BYTES))


def client_tls(
    authorities: Path | None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return how to verify a server, and which certificate to present.

    Args:
        authorities: PEM file of CA certificates; None for the system's.
        certificate: PEM file of a client certificate and its chain.
        key: PEM file of its private key; None if the certificate's file contains it.

    Raises:
        Unreachable: a file is unusable.
    """
    try:
        pem = None if authorities is None else read_file(authorities, Custody.PUBLIC).data
        # An empty string would select the system's authorities.
        context = ssl.create_default_context(
            cadata=None if pem is None else pem.decode("ascii", "replace") or "-"
        )
    except (OSError, ValueError):
        raise Unreachable(f"{authorities} must be a PEM file of certificates") from None
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # set by Python 3.13, not by curl
    if certificate is not None:
        _present(context, certificate, key)
    return context


def _present(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    pem = read_file(certificate, Custody.PUBLIC).data
    if key is None and b"PRIVATE KEY" not in pem:
        raise Unreachable(f"{certificate} contains no private key; pass its file with --key")
    key = key or certificate
    read_private(key)
    try:
        # Without a password, OpenSSL asks the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError):
        raise Unreachable(
            f"{certificate} and {key} must be PEM files of a certificate and of its key, without a password"
        ) from None


def read_private(path: Path) -> bytes:
    """Return the content of a file that others may neither read nor write.

    Raises:
        Unreachable: it can't be read, or others can access it.
    """
    content = read_file(path, Custody.CREDENTIAL)
    for weakness in content.weaknesses:
        if weakness.risk is Risk.READ:
            raise Unreachable(f"{path} holds a credential, and {weakness.text}; {weakness.remedy}")
    return content.data


def read_file(path: Path, custody: Custody) -> Content:
    """Return the content of a file of at most 1 MiB.

    Raises:
        Unreachable: it can't be read, or its custody refuses it.
    """
    try:
        return InputFile(path, custody, _MAX_BYTES).read()
    except FileUnusable as error:
        raise Unreachable(f"{path} {error}") from None


def _why(error: OSError | http.client.HTTPException, scheme: str, seconds: int) -> str:
    match error:
        case urllib.error.URLError(reason=OSError() as reason):
            return _why(reason, scheme, seconds)
        case ssl.SSLCertVerificationError(verify_message=why):
            return f"the certificate is not trusted ({why}); pass the file of its CA with --cacert"
        case ssl.SSLError(reason=str(why)) if "CERTIFICATE" in why or "UNKNOWN_CA" in why:
            return f"the server refuses the client certificate ({why}); pass another with --cert"
        case ssl.SSLError(reason=str(why)):
            return f"TLS handshake failed ({why}); is it http://?"
    cause = next((text for kind, text in _CAUSES if isinstance(error, kind)), None)
    if cause is None:
        return f"{error}; correct the host and the port"
    return cause.format(why=_WHY_CLOSED[scheme], seconds=seconds)
