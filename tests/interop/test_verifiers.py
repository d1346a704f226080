"""Tokens and keys judged by the libraries that our users' services use."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.support import jwks
from tools.support.programs import require_tool
from tools.support.service import Service
from tools.support.verifiers import verify_with_joserfc, verify_with_pyjwt

KEYS = {"RS256": {**jwks.rsa(), "kid": "r"}, "ES256": {**jwks.ec(), "kid": "e"}}
REQUEST = {
    "sender": "agent://risk",
    "scopes": {
        "can_start_sessions": True,
        "allowed_modes": ["macp.mode.decision.v1"],
        "max_open_sessions": 3,
    },
    "ttl_seconds": 60,
}


@pytest.fixture(params=KEYS)
def served(request: pytest.FixtureRequest, start_service: Callable[..., Service]) -> Service:
    """A service that signs with one algorithm and publishes a key of each."""
    document = {"keys": list(KEYS.values())}
    environment = {"MACP_AUTH_SIGNING_KEY_JSON": json.dumps(document)}
    return start_service({**environment, "MACP_AUTH_SIGNING_KID": KEYS[request.param]["kid"]})


def assert_claims(claims: dict[str, Any]) -> None:
    assert claims["macp_scopes"] == REQUEST["scopes"]
    assert claims["sub"] == REQUEST["sender"]
    assert claims["exp"] - claims["iat"] == REQUEST["ttl_seconds"]


def test_pyjwt_and_joserfc(served: Service) -> None:
    token = served.mint(**REQUEST)["token"]
    assert_claims(verify_with_pyjwt(token, served.jwks()))
    assert_claims(verify_with_joserfc(token, served.jwks()))


def test_pyjwt_fetches_the_keys_itself(served: Service) -> None:
    """With PyJWT's own JWKS client, over HTTP, choosing the key by kid."""
    token = served.mint(**REQUEST)["token"]
    key = jwt.PyJWKClient(f"{served.url}/.well-known/jwks.json").get_signing_key_from_jwt(token)
    assert_claims(jwt.decode(token, key, algorithms=["RS256", "ES256"], audience="macp-runtime"))


def test_node_jose(served: Service, node_modules: Path) -> None:
    """The library of the reference service and of the TypeScript SDK."""
    node = require_tool("node", "nodejs")
    token = served.mint(**REQUEST)["token"]
    url = f"{served.url}/.well-known/jwks.json"
    run = subprocess.run(
        [node, "verify.mjs", token, url, "macp-auth-service", "macp-runtime"],
        cwd=node_modules, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    verified = json.loads(run.stdout)
    assert_claims(verified["payload"])
    assert set(verified["protectedHeader"]) == {"alg", "kid", "typ"}
