#!/usr/bin/env python3
"""Exit 0 if the service in this container answers /healthz, or the path given. Needs no curl, no shell."""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT", "3200")), timeout=2)
try:
    connection.request("GET", sys.argv[1] if len(sys.argv) > 1 else "/healthz")
    status = connection.getresponse().status
except OSError as error:
    sys.exit(f"not healthy: {error}")
sys.exit(None if status == http.client.OK else f"not healthy: status {status}")
