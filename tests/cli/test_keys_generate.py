"""``macp-auth keys generate``, as a shell user sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import joserfc.jwk
import pytest

from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, clean_environment
from tools.support.verifiers import verify_with_joserfc, verify_with_pyjwt


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "macp_auth", *args]
    return subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_generated_key_serves(alg: str, start_service: Callable[..., Service]) -> None:
    """The output is a private JWK, goes into the variable as it is, and survives a restart."""
    generated = run("keys", "generate", "--alg", alg)
    jwk = json.loads(generated.stdout)
    assert generated.stdout.count("\n") == 1
    assert jwk["kid"] == joserfc.jwk.import_key(jwk).thumbprint()
    environment = {"MACP_AUTH_SIGNING_KEY_JSON": generated.stdout}
    before, after = start_service(environment), start_service(environment)
    token = before.mint()["token"]
    assert before.jwks() == after.jwks()
    assert verify_with_pyjwt(token, after.jwks()) == verify_with_joserfc(token, after.jwks())
    assert after.jwks()["keys"][0]["alg"] == alg


def test_kid_can_be_chosen() -> None:
    assert (
        json.loads(run("keys", "generate", "--alg", "ES256", "--kid", "2026-11").stdout)["kid"] == "2026-11"
    )


@pytest.mark.parametrize("args", [["--alg", "HS256"], ["--kid", ""], ["--kid", "x" * 257]])
def test_bad_options(args: list[str]) -> None:
    """Exit 2, as a command line does, and no key."""
    refused = run("keys", "generate", *args)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert args[0] in refused.stderr
