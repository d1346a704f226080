"""Which of our tokens the real runtime accepts."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import jwt
import pytest

from tests.support import jwks
from tools.support.macp_runtime import MacpRuntime, verifying
from tools.support.service import Service

KEYS = {"RS256": {**jwks.rsa(), "kid": "r"}, "ES256": {**jwks.ec(), "kid": "e"}}
UNAUTHENTICATED = "status UNAUTHENTICATED"


def jwks_url(service: Service) -> str:
    return f"{service.url}/.well-known/jwks.json"


@pytest.mark.parametrize("algorithm", KEYS)
def test_both_algorithms(start_service: Callable[..., Service], tmp_path: Path, algorithm: str) -> None:
    """With a key of the other beside it; and not once it is altered."""
    keys = {"MACP_AUTH_SIGNING_KEY_JSON": json.dumps({"keys": list(KEYS.values())})}
    service = start_service({**keys, "MACP_AUTH_SIGNING_KID": KEYS[algorithm]["kid"]})
    token = service.mint(sender="agent://risk")["token"]
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    with MacpRuntime(tmp_path, verifying(jwks_url(service))) as runtime:
        assert runtime.answer_to(token) == "accepted"
        header, payload, signature = token.split(".")
        other = service.mint(sender="agent://other")["token"].split(".")[1]
        assert runtime.answer_to(f"{header}.{other}.{signature}") == UNAUTHENTICATED
        assert runtime.answer_to(f"{header}.{payload}.") == UNAUTHENTICATED


@pytest.mark.parametrize("name", ["MACP_AUTH_ISSUER", "MACP_AUTH_AUDIENCE"])
def test_issuer_and_audience_must_be_the_same(service: Service, tmp_path: Path, name: str) -> None:
    """As docs/integration.md says of the two variables that both sides have."""
    with ExitStack() as stack:
        same = stack.enter_context(MacpRuntime(tmp_path, verifying(jwks_url(service))))
        settings = verifying(jwks_url(service)) | {name: "another"}
        other = stack.enter_context(MacpRuntime(tmp_path, settings))
        token = service.mint(sender="agent://risk")["token"]
        assert same.answer_to(token) == "accepted"
        assert other.answer_to(token) == UNAUTHENTICATED


def test_tokens_of_another_service(
    service: Service, runtime: MacpRuntime, start_service: Callable[..., Service]
) -> None:
    """Refused, although everything but the key is the same."""
    assert runtime.answer_to(service.mint()["token"]) == "accepted"
    assert runtime.answer_to(start_service().mint()["token"]) == UNAUTHENTICATED
