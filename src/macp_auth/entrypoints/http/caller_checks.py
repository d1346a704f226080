"""Who may get a token, whatever it asks for.

Browsers are no callers: a page on a developer's machine must get no token. A browser says ``Origin`` with
every POST, and ``Sec-Fetch-Site`` where it trusts the address. Node's ``fetch`` says neither (it does say
``Sec-Fetch-Mode``).

DNS rebinding is a foreign name that leads to 127.0.0.1. The browser then names the service's own port in
``Host``, since it connected to it. A proxy that hands on its caller's ``Host`` names another port, or none:
so a foreign name is refused only with our port, and only where the service listens on loopback.

The protocol puts a client's certificate into the scope, as ASGI's TLS extension says. One that the client CA
does not vouch for has ended the handshake. It may end while the connection is open.
"""

from __future__ import annotations

import re
import time
from operator import itemgetter
from typing import Any

from litestar.types import Scope

from macp_auth.domain.callers import ClientCertificate
from macp_auth.entrypoints.http.errors import BrowserRefusal, HTTPRefusal

_BROWSER_HEADERS = frozenset({b"origin", b"sec-fetch-site"})
_OWN_NAMES = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})
_HOST_AND_PORT = re.compile(rb"(\[[^\]]*\]|[^:]*)(?::([0-9]{0,5}))?")
_NAME = itemgetter(0)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def refuse_browsers(scope: Scope) -> None:
    """Let a request pass only if no browser says that it sent it.

    Raises:
        BrowserRefusal: one does.
    """
    if not _BROWSER_HEADERS.isdisjoint(map(_NAME, scope["headers"])):
        raise BrowserRefusal("browsers get no tokens: a request with Origin or Sec-Fetch-Site is refused")


class OwnHosts:
    """Refuses a foreign name in ``Host`` with the service's own port: on loopback, that is DNS rebinding."""

    def __init__(self, listening_on: str) -> None:
        self._own = {*_OWN_NAMES, listening_on.lower().encode()}

    def __call__(self, scope: Scope) -> None:
        """Let a request pass only if its Host is ours, or has another port.

        Raises:
            BrowserRefusal: it is not.
        """
        # The protocol has checked that there is one at most, and that it has only what a Host may have.
        host = dict(scope["headers"]).get(b"host")
        server = scope["server"]
        if host is None or host in self._own or server is None:
            return
        if (parts := _HOST_AND_PORT.fullmatch(host)) and parts[1].lower() not in self._own:
            port = int(parts[2]) if parts[2] else _DEFAULT_PORTS.get(scope["scheme"])
            if port == server[1]:
                raise BrowserRefusal("Host names another host with the port of this service; use localhost")


def require_client_certificate(scope: Scope) -> None:
    """Let a request pass only on a connection with a client certificate that has not ended.

    Raises:
        HTTPRefusal: it has none. Not 401, which would have to name a scheme for a header to try.
    """
    tls: Any = scope["extensions"]["tls"]  # type: ignore[index]  # our protocol sets it
    certificate: ClientCertificate | None = tls["client_certificate"]
    if certificate is None:
        raise HTTPRefusal(403, "a client certificate is required")
    if certificate.not_after <= time.time():
        # The client may have another one by now: it is to come back with that.
        raise HTTPRefusal(403, "the client certificate has expired", {"Connection": "close"})
