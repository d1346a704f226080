"""The image's health check asks where the service's settings say that it listens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import ROOT
from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, clean_environment, free_port
from tools.support.tls import Authority
from tools.support.tls_service import TLSService, tls_settings

pytestmark = pytest.mark.slow  # services of their own


def check(port: int, env: Mapping[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", ROOT / "deploy/docker/healthcheck.py", *args],
        env=clean_environment({**env, "PORT": str(port)}),
        capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::"])
def test_a_service_on_any_address(start_service: Callable[..., Service], host: str) -> None:
    """It is healthy, and so is one of its paths."""
    env = {"MACP_AUTH_HOST": host}
    service = start_service(env)
    for path in ([], ["/readyz"]):
        healthy = check(service.port, env, *path)
        assert healthy.returncode == 0, healthy.stderr
    assert "status 404" in check(service.port, env, "/nothing").stderr


def test_a_service_with_tls(tmp_path: Path) -> None:
    """Its certificate is for the names that callers use, which the check does not ask by."""
    authority = Authority(tmp_path)
    env = tls_settings(authority.issue("server"))
    with TLSService(tmp_path, authority.path, env) as service:
        assert check(service.port, env).returncode == 0


def test_nobody_answers() -> None:
    """One line says why, and no traceback."""
    unhealthy = check(free_port(), {})
    assert unhealthy.returncode == 1
    assert unhealthy.stderr == "not healthy: [Errno 111] Connection refused\n"


def test_the_override_for_other_compose_files_asks_whether_it_can_mint(
    start_service: Callable[..., Service],
) -> None:
    """Its command is the image's check, with the path that says ready; it replaces what would be built."""
    override = (ROOT / "deploy/docker/compose.macp-stack.yaml").read_text()
    assert "build: !reset null" in override
    command = yaml.safe_load(override.replace("!reset ", ""))["services"]["auth-service"]["healthcheck"][
        "test"
    ]
    assert command[:4] == ["CMD", "python", "-I", "/opt/macp-auth/healthcheck.py"]
    service = start_service()
    healthy = check(service.port, {}, *command[4:])
    assert healthy.returncode == 0, healthy.stderr
    assert "Connection refused" in check(free_port(), {}, *command[4:]).stderr
