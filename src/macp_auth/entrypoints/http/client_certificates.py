"""Whether the connection of a request has a client certificate.

The protocol puts the certificate into the scope, as ASGI's TLS extension says. One that the
client CA does not vouch for has ended the handshake.
"""

from __future__ import annotations

from litestar.types import Scope

from macp_auth.entrypoints.http.errors import HTTPRefusal


def require_client_certificate(scope: Scope) -> None:
    """Let a request pass only on a connection with a client certificate.

    Raises:
        HTTPRefusal: it has none. Not 401, which would have to name a scheme for a header to try.
    """
    if not scope["extensions"]["tls"]["client_cert_chain"]:  # type: ignore[index]  # our protocol sets it
        raise HTTPRefusal(403, "a client certificate is required")
