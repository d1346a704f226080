"""Properties of every answer, for any body."""

from __future__ import annotations

import time

from tools.support.asgi import InProcess
from tools.support.runtime import claims_at_runtime
from tools.support.verifiers import verify_minted


def assert_contract(service: InProcess, body: bytes, content_type: str) -> int:
    """Ask with ``body``, hold the answer against the contract, and return its status."""
    asked_at = time.time()
    answer = service.post(body, content_type)
    assert answer.headers["content-type"] == "application/json"
    if answer.status != 200:
        assert answer.status in {400, 413, 415}, answer.body
        assert set(answer.json) == {"error"}
        return answer.status
    minted = answer.json
    assert set(minted) == {"token", "sender", "expires_in_seconds"}
    assert len(minted["token"]) <= 8192
    jwks = service.request("GET", "/.well-known/jwks.json").json
    claims = verify_minted(minted["token"], jwks, asked_at)
    assert claims_at_runtime(minted["token"]) == claims
    assert set(claims) == {"macp_scopes", "sub", "iss", "aud", "iat", "exp"}
    assert claims["sub"] == minted["sender"]
    assert claims["exp"] - claims["iat"] == minted["expires_in_seconds"]
    assert 1 <= minted["expires_in_seconds"] <= 3600
    return answer.status
