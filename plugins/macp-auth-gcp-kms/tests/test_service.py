"""The service as it is run, with this plugin: a process, its environment, its HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import jwt
import pytest

pytestmark = pytest.mark.slow  # services of their own

WITHIN_SECONDS = 60


class Service:
    """A running service. Use as a context manager."""

    def __init__(self, directory: Path, kms: Any, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = str(probe.getsockname()[1])
        env = {
            "PORT": self._port,
            "MACP_AUTH_SIGNER": "gcp-kms",
            "MACP_AUTH_GCP_KMS_KEY": kms.key,
            "MACP_AUTH_GCP_KMS_ENDPOINT": kms.url,
        }
        self._log = directory / "service.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "macp_auth", "serve"],
                env={**os.environ, **env, **settings},
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        self.wait_for(self._has_keys)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if condition():
                return
            time.sleep(0.1)
        raise AssertionError(f"not within {WITHIN_SECONDS} s:\n{self._log.read_text()}")

    def mint(self) -> str:
        """Mint a token, verify it with what is published, and return its kid."""
        token = str(self._json("/tokens", {"sender": "agent://risk"})["token"])
        kid = str(jwt.get_unverified_header(token)["kid"])
        key = jwt.PyJWKSet.from_dict(self._json("/.well-known/jwks.json"))[kid]
        claims = jwt.decode(token, key, algorithms=[key.algorithm_name], audience="macp-runtime")
        assert claims["sub"] == "agent://risk"
        return kid

    def published(self) -> list[str]:
        return [key["kid"] for key in self._json("/.well-known/jwks.json")["keys"]]

    def _has_keys(self) -> bool:
        try:
            return bool(self.published())
        except OSError:  # nobody listens yet, or the keys have not been read
            return False

    def _json(self, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


@pytest.fixture
def secure_kms(google: Any) -> Iterator[Any]:
    """Over TLS, so that the service shows the credentials of its account."""
    with google.kms() as kms:
        yield kms


def test_two_workers_mint(secure_kms: Any, google: Any, tmp_path: Path) -> None:
    """Every token of every worker verifies with the one published key; calls have the account's token."""
    secure_kms.create()
    with Service(tmp_path, secure_kms, MACP_AUTH_WORKERS="2") as service:
        (kid,) = service.published()
        assert {service.mint() for _ in range(20)} == {kid}
    for authorization in secure_kms.authorizations:
        scheme, token = authorization.split(" ")
        assert scheme == "Bearer"
        claims = jwt.decode(token, google.account_key, algorithms=["RS256"], options={"verify_aud": False})
        assert claims["iss"] == "macp-auth@example.iam.gserviceaccount.com"
    assert secure_kms.authorizations


def test_rotation_and_revocation_of_the_readme(secure_kms: Any, tmp_path: Path) -> None:
    """The README's steps: no token fails, the old key stays for its tokens, a disabled one leaves at once.

    The lead is short, for verifiers that cache nothing.
    """
    hurry = {
        "MACP_AUTH_MAX_TTL_SECONDS": "5",
        "MACP_AUTH_KEY_REFRESH_SECONDS": "1",
        "MACP_AUTH_JWKS_MAX_AGE_SECONDS": "0",
        "MACP_AUTH_CLOCK_SKEW_SECONDS": "0",
        "MACP_AUTH_VERIFIER_CACHE_TTL_SECONDS": "0",
        "MACP_AUTH_VERIFIER_STALE_GRACE_SECONDS": "0",
        "MACP_AUTH_VERIFIER_LEEWAY_SECONDS": "0",
        "MACP_AUTH_KEY_PUBLISH_LEAD_SECONDS": "6",
    }
    first = secure_kms.create()
    with Service(tmp_path, secure_kms, **hurry) as service:
        old = service.mint()

        second = secure_kms.create("RSA_SIGN_PKCS1_2048_SHA256")
        service.wait_for(lambda: len(service.published()) == 2)
        assert service.mint() == old
        service.wait_for(lambda: service.mint() != old)
        new = service.mint()
        assert service.published() == [old, new]
        service.wait_for(lambda: service.published() == [new])
        secure_kms.disable(first)

        secure_kms.create()
        service.wait_for(lambda: len(service.published()) == 2)
        assert service.mint() == new
        secure_kms.disable(second)
        service.wait_for(lambda: new not in service.published())
        assert service.mint() not in {old, new}
