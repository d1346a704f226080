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
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import jwt
import pytest

pytestmark = pytest.mark.slow  # services of their own

WITHIN_SECONDS = 30


class Service:
    """A running service. Use as a context manager."""

    def __init__(self, directory: Path, keys: str, url: str, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = str(probe.getsockname()[1])
        env = {
            "PORT": self._port,
            "MACP_AUTH_SIGNER": "aws-kms",
            "MACP_AUTH_AWS_KMS_KEYS": keys,
            "MACP_AUTH_AWS_KMS_ENDPOINT_URL": url,
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


@pytest.mark.parametrize(("workers", "spec"), [("1", "RSA_2048"), ("2", "ECC_NIST_P256")])
def test_service_mints(
    workers: str, spec: str, moto: str, create_key: Callable[..., str], tmp_path: Path
) -> None:
    """Every token of every worker verifies with the one published key."""
    with Service(tmp_path, create_key(spec), moto, MACP_AUTH_WORKERS=workers) as service:
        (kid,) = service.published()
        assert {service.mint() for _ in range(20)} == {kid}


def test_rotation_and_revocation_of_the_readme(
    moto: str, admin: Any, create_key: Callable[..., str], tmp_path: Path
) -> None:
    """The README's steps: no token fails, the old key stays for its tokens, a disabled key leaves at once.

    The lead is short, for verifiers that cache nothing.
    """
    first = create_key()
    for slot in ("a", "b"):
        admin.create_alias(AliasName=f"alias/rotating-{slot}", TargetKeyId=first)
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
    with Service(tmp_path, "alias/rotating-a,alias/rotating-b", moto, **hurry) as service:
        old = service.mint()

        second = create_key("RSA_2048")
        admin.update_alias(AliasName="alias/rotating-b", TargetKeyId=second)
        service.wait_for(lambda: len(service.published()) == 2)
        assert service.mint() == old
        service.wait_for(lambda: service.mint() != old)
        new = service.mint()
        assert service.published() == [old, new]
        service.wait_for(lambda: service.published() == [new])

        third = create_key()
        admin.update_alias(AliasName="alias/rotating-a", TargetKeyId=third)
        service.wait_for(lambda: len(service.published()) == 2)
        assert service.mint() == new
        admin.disable_key(KeyId=second)
        service.wait_for(lambda: new not in service.published())
        assert service.mint() not in {old, new}
