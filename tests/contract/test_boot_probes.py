"""Start-up configurations that were tried on the reference, each on a real process of ours.

The reference started on most bad ones and then answered every mint with 500, minted what no
verifier accepts, or published a shared secret. Ours starts only where it can mint.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import jwks
from tools.support.bounded import HANG_SECONDS
from tools.support.runtime import claims_at_runtime
from tools.support.service import Service, clean_environment, free_port
from tools.support.verifiers import verify_with_joserfc, verify_with_pyjwt

PROBES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data/boot-probes.json").read_text())
REFUSED = [probe for probe in PROBES if "refuses" in probe["ours"]]
SERVED = [probe for probe in PROBES if "mints" in probe["ours"]]


def boot_environment(probe: dict[str, Any]) -> dict[str, str]:
    if "key" not in probe:
        return dict(probe["env"])
    if probe["key"] == "malformed":
        return {**probe["env"], "MACP_AUTH_SIGNING_KEY_JSON": json.dumps(jwks.rsa())[:-5]}
    return {**probe["env"], "MACP_AUTH_SIGNING_KEY_JSON": json.dumps(jwks.of_kind(probe["key"]))}


@pytest.mark.parametrize("probe", SERVED, ids=lambda probe: probe["id"])
def test_good_configuration(probe: dict[str, Any], start_service: Callable[..., Service]) -> None:
    """It starts, and what it mints verifies with what it publishes."""
    service = start_service(boot_environment(probe))
    token = service.mint(sender="alice")["token"]
    assert verify_with_pyjwt(token, service.jwks())["sub"] == "alice"
    assert verify_with_joserfc(token, service.jwks())["sub"] == "alice"
    claims_at_runtime(token)
    assert all(
        set(key) <= {"kty", "n", "e", "crv", "x", "y", "kid", "alg", "use"} for key in service.jwks()["keys"]
    )


@pytest.mark.parametrize("probe", REFUSED, ids=lambda probe: probe["id"])
def test_bad_configuration(probe: dict[str, Any]) -> None:
    """It exits non-zero within 5 s with one line that names the variable and shows none of its content."""
    environment = boot_environment(probe)
    command = [sys.executable, "-m", "macp_auth", "serve"]
    if "PORT" not in environment:
        command += ["--port", str(free_port())]
    run = subprocess.run(
        command,
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert run.returncode not in (0, None)
    assert run.stdout == ""
    line = json.loads(run.stderr)
    assert line["level"] == "critical"
    assert probe["ours"]["refuses"] in line["error"]
    for secret in _strings(environment.get("MACP_AUTH_SIGNING_KEY_JSON", "")):
        assert secret not in run.stderr


def _strings(text: str) -> set[str]:
    """Every long enough member value, and pieces of a text that is no JSON."""
    try:
        document = json.loads(text)
    except ValueError:
        return {text[start : start + 16] for start in range(0, len(text) - 16, 16)}
    values = document.values() if isinstance(document, dict) else []
    return {value for value in values if isinstance(value, str) and len(value) > 8}
