"""Checks that refuse a request before its caller is known.

A web page on a developer's machine must not get a token, nor read the metrics. A browser sends ``Origin``
with every POST, and ``Sec-Fetch-Site`` to an address that it trusts. Node's ``fetch`` sends neither (it
sends ``Sec-Fetch-Mode``).

With DNS rebinding, a foreign name resolves to 127.0.0.1. The browser then sends the service's own port in
``Host``, because it connected to it. A proxy that forwards the ``Host`` of its client sends another port, or
none. So a foreign name is refused only with our port, and only if the service listens on loopback. An
address is not refused: rebinding needs a name.

The protocol puts the client's certificate into the scope. If the client CA does not verify it, the handshake
fails. It may expire while the connection is open.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from litestar.types import Scope

from macp_auth.domain.callers import ClientCertificate
from macp_auth.entrypoints.http.errors import BrowserRefusal, HTTPRefusal

CallerCheck = Callable[[Scope], None]
"""Raises to refuse a request, whatever it asks for."""
_BROWSER_HEADERS = frozenset({b"origin", b"sec-fetch-site"})
_ADDRESS = re.compile(rb"\[.*\]|[0-9.]+")
_HOST_AND_PORT = re.compile(rb"(\[[^\]]*\]|[^:]*)(?::([0-9]{0,5}))?")
_NAME = itemgetter(0)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def refuse_browsers(scope: Scope) -> None:
    """Refuse a request that a browser sent.

    Raises:
        BrowserRefusal: a browser sent it.
    """
    if not _BROWSER_HEADERS.isdisjoint(map(_NAME, scope["headers"])):
        raise BrowserRefusal("browsers get no tokens: a request with Origin or Sec-Fetch-Site is refused")


class OwnHosts:
    """Refuses a foreign name in ``Host`` with the service's own port: on loopback, this is DNS rebinding."""

    def __init__(self, listening_on: str) -> None:
        self._own = {b"localhost", listening_on.lower().encode()}

    def __call__(self, scope: Scope) -> None:
        """Refuse a request whose Host is a foreign name with our port.

        Raises:
            BrowserRefusal: it is.
        """
        # The protocol has checked that there is at most one, and its syntax.
        host = dict(scope["headers"]).get(b"host")
        server = scope["server"]
        if host is None or host in self._own or server is None:
            return
        parts = _HOST_AND_PORT.fullmatch(host)
        if parts and parts[1].lower() not in self._own and not _ADDRESS.fullmatch(parts[1]):
            port = int(parts[2]) if parts[2] else _DEFAULT_PORTS.get(scope["scheme"])
            if port == server[1]:
                raise BrowserRefusal(
                    "Host names another host with the port of this service; use localhost or an address"
                )


def require_client_certificate(scope: Scope) -> None:
    """Refuse a request without a valid client certificate.

    Raises:
        HTTPRefusal: there is none, or it has expired. Not 401, which must name a scheme for a header.
    """
    tls: Any = scope["extensions"]["tls"]  # type: ignore[index]  # our protocol sets it
    certificate: ClientCertificate | None = tls["client_certificate"]
    if certificate is None:
        raise HTTPRefusal(403, "a client certificate is required")
    if certificate.not_after <= time.time():
        # The client may have a new one: for that, it needs a new connection.
        raise HTTPRefusal(403, "the client certificate has expired", {"Connection": "close"})
