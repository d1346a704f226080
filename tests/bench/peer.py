"""A stand-in for another service: ``python peer.py WAY``, and WAY is how it behaves.

``mints`` answers like one; ``refuses`` answers 500; ``dies`` ends when it is first asked, and
``tires`` soon after that; ``hides`` mints, but in a process that its first one started.
"""

from __future__ import annotations

import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

TIRED_AFTER = 200  # requests: the load has begun

way = sys.argv[1]
requests = count(1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open

    def do_POST(self) -> None:
        number = next(requests)
        if way == "dies" or (way == "tires" and number > TIRED_AFTER):
            os._exit(3)
        self.rfile.read(int(self.headers["content-length"]))
        body = b'{"token":"..."}' if self.path == "/tokens" else b"{}"
        self.send_response(500 if way == "refuses" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


assert os.environ["GREETING"] == "good day", "the variables of --peer-env are missing"
if way == "hides":
    sys.exit(subprocess.run([sys.executable, __file__, "mints"], check=False).returncode)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
