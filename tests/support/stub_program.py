"""A program that speaks the signer protocol and has no keys, with one fault in its first process.

It imports nothing of ours, so it starts quickly. Its arguments are the fault, and a file that says that a
process had it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

RESULTS: dict[str, object] = {
    "hello": {"protocol": 1, "name": "stub", "prefix": "MACP_AUTH_STUB_"},
    "prepare": {"state": ""},
    "key_versions": {"versions": []},
    "sign": {"signature": ""},
    "statistics": {"numbers": {}},
}


def main() -> None:
    """Answer until the service is gone."""
    fault, had = sys.argv[1], Path(sys.argv[2])
    if had.exists():
        fault = ""
    had.touch()
    service = socket.socket(fileno=0)
    stream = service.makefile("rb")
    while length := stream.read(4):
        call = json.loads(stream.read(int.from_bytes(length)))
        method = call["method"]
        if "id" not in call or fault == "no answer" or (fault == "ignore a signature" and method == "sign"):
            continue
        reply = {"jsonrpc": "2.0", "id": call["id"], "result": RESULTS.get(method, {})}
        body = json.dumps(reply).encode()
        if fault == "slow" and method in {"ping", "sign"}:
            time.sleep(0.05)
        if fault == "no UTF-8" and method == "key_versions":
            body = body.replace(b"[]", b'[{"kid": "\xff"}]')
        service.sendall(len(body).to_bytes(4) + body)
        if fault == "exit once open" and method == "open":
            os._exit(3)


if __name__ == "__main__":
    main()
