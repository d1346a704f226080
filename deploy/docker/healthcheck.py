#!/usr/bin/env python3
"""Exit 0 if the service in this container answers /healthz, or the path given. Needs no curl, no shell.

It asks where the service's own settings say that it listens.
"""

import http.client
import os
import ssl
import sys

HERE = dict.fromkeys(("0.0.0.0", "::"), "127.0.0.1")  # noqa: S104 - `::` listens on IPv4 too, or only there

host = os.environ.get("MACP_AUTH_HOST", "127.0.0.1")
address = HERE.get(host, host), int(os.environ.get("PORT", "3200"))
if "MACP_AUTH_TLS_CERT_FILE" in os.environ:
    # The certificate is for the names that callers use, and this connection does not leave the container.
    context = ssl._create_unverified_context()  # noqa: S323, SLF001 - see above
    connection = http.client.HTTPSConnection(*address, timeout=2, context=context)
else:
    connection = http.client.HTTPConnection(*address, timeout=2)
try:
    connection.request("GET", sys.argv[1] if len(sys.argv) > 1 else "/healthz")
    status = connection.getresponse().status
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"not healthy: {error}")
sys.exit(None if status == http.client.OK else f"not healthy: status {status}")
