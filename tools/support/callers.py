"""A callers file, and the credentials of its callers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt

from tools.support.wire import Answer, exchange, request_bytes

SPIFFE_ID = "spiffe://example.org/ns/macp/sa/playground"
DNS_NAME = "control-plane.macp.svc"
RISK = """
  [[caller.grant]]
  senders = ["risk-agent", "fraud-*"]
  max_ttl_seconds = 900
  scopes = { allowed_modes = ["macp.mode.decision.v1", ""], can_start_sessions = true, max_open_sessions = 4 }
"""
UNREADABLE_ISSUER = """
[[issuer]]
name = "cluster"
issuer = "https://kubernetes.default.svc.cluster.local"
audience = "macp-auth"
jwks_file = "/nowhere/jwks.json"

[[caller]]
name = "workload"
jwt = { issuer = "cluster", subject = "system:serviceaccount:macp:workload" }
"""


def write(path: Path, text: str) -> dict[str, str]:
    """Put ``text`` into the callers file, by renaming, and return the setting that names it."""
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)
    return {"MACP_AUTH_CALLERS_FILE": str(path)}


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token, unverified."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def request(body: Mapping[str, Any] | bytes, *, bearer: str | None = None, **headers: str) -> bytes:
    """The bytes of ``POST /tokens``."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"host": "localhost", "content-type": "application/json", "content-length": str(len(data))}
    if bearer is not None:
        fields["authorization"] = f"Bearer {bearer}"
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    return request_bytes("POST", "/tokens", list(fields.items()), data)


def mint(port: int, body: Mapping[str, Any] | bytes, *, bearer: str | None = None, **headers: str) -> Answer:
    """The answer to a request on a connection of its own."""
    return exchange(port, request(body, bearer=bearer, **headers))
