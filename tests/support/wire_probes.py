"""What the reference service was asked, and what it answered."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from pathlib import Path
from typing import Any

from tools.support.wire import request_bytes

PROBES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data/wire-probes.json").read_text())


def raw_request(probe: dict[str, Any]) -> bytes:
    """The bytes of a probe's request."""
    request = probe["request"]
    if "raw_base64" in request:
        return b64decode(request["raw_base64"])
    body = b64decode(request.get("body_base64", ""))
    if "body_zlib_base64" in request:
        body = zlib.decompress(b64decode(request["body_zlib_base64"]))
    filler = [(f"X-{number}", "x") for number in range(request.get("filler_headers", 0))]
    headers = [*map(tuple, request["headers"]), *filler]
    return request_bytes(
        request["method"], request["path"], headers, body, request.get("version", "HTTP/1.1")
    )
