"""Whether the connection of a request has a client certificate.

The protocol puts the certificate into the scope, as ASGI's TLS extension says. One that the
client CA does not vouch for has ended the handshake. It may end while the connection is open.
"""

from __future__ import annotations

import time
from typing import Any

from litestar.types import Scope

from macp_auth.entrypoints.http.errors import HTTPRefusal


def require_client_certificate(scope: Scope) -> None:
    """Let a request pass only on a connection with a client certificate that has not ended.

    Raises:
        HTTPRefusal: it has none. Not 401, which would have to name a scheme for a header to try.
    """
    tls: Any = scope["extensions"]["tls"]  # type: ignore[index]  # our protocol sets it
    if not tls["client_cert_chain"]:
        raise HTTPRefusal(403, "a client certificate is required")
    if tls["client_cert_ends"] <= time.time():
        # The client may have another one by now: it is to come back with that.
        raise HTTPRefusal(403, "the client certificate has expired", {"Connection": "close"})
