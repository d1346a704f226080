"""Configurations with which nobody could use the tokens, or anyone could forge them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import jwks
from tools.support.service import BOOT_SECONDS, Service, clean_environment, free_port

pytestmark = pytest.mark.slow  # services of their own

KEY, FILE = "MACP_AUTH_SIGNING_KEY_JSON", "MACP_AUTH_SIGNING_KEYS_FILE"
KIDS = ["a\nb", "a\x1b[31mb", "a\u202eb", "a\u200bb", "a\u2028b", "a\u0085b", " a", "a ", "\ue000"]


def refusal(env: dict[str, str]) -> str:
    """Start a service that must not start; return the one line that says why."""
    command = [sys.executable, "-m", "macp_auth", "serve", "--port", str(free_port())]
    environment = clean_environment(env)
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=BOOT_SECONDS, check=False
    )
    assert run.returncode == 2
    assert run.stdout == ""
    error: str = json.loads(run.stderr)["error"]
    return error


@pytest.mark.parametrize("kid", KIDS[:3], ids=ascii)
def test_a_kid_that_can_not_be_seen(kid: str, tmp_path: Path) -> None:
    """From the environment and from a file."""
    document = json.dumps({**jwks.ec(), "kid": kid})
    path = tmp_path / "keys.json"
    path.touch(0o600)
    path.write_text(document)
    for source, env in ((KEY, {KEY: document}), (FILE, {"MACP_AUTH_SIGNER": "jwk-file", FILE: str(path)})):
        error = refusal(env)
        assert source in error
        assert "kid" in error
        assert kid not in error


@pytest.mark.parametrize("kind", ["small-exponent", "large-exponent", "close-primes", "unequal-primes"])
def test_a_weak_key(kind: str) -> None:
    """It is refused in words that say what is wrong with it, without its numbers."""
    document = jwks.weak(kind)
    error = refusal({KEY: json.dumps(document)})
    assert KEY in error
    assert jwks.WEAK[kind] in error
    assert not [value for value in document.values() if len(value) > 16 and value in error]


def test_issuer_and_audience_that_leave_no_room() -> None:
    """Each is within its own limit, and together no token fits."""
    wide = "\U0001f600" * 1000
    error = refusal({"MACP_AUTH_ISSUER": wide, "MACP_AUTH_AUDIENCE": wide})
    assert "MACP_AUTH_ISSUER" in error
    assert "MACP_AUTH_AUDIENCE" in error
    assert wide not in error


def test_the_longest_of_all_still_mints(start_service: Callable[..., Service]) -> None:
    """The longest issuer and audience in ASCII, the longest kid, and a typical request."""
    key = {**jwks.rsa(4096), "kid": "k" * 256}
    env = {"MACP_AUTH_ISSUER": "i" * 1024, "MACP_AUTH_AUDIENCE": "a" * 1024, KEY: json.dumps(key)}
    service = start_service(env)
    modes = [f"macp.mode.decision.v{number}" for number in range(8)]
    assert service.mint(sender="agent://" + "r" * 100, scopes={"allowed_modes": modes})["token"]
