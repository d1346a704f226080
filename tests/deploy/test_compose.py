"""compose.yaml, from nothing to a token by the one command that it shows."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.engine import BUILD_SECONDS, Engine, get
from tests.docs.pages import ROOT
from tests.support.service import free_port
from tests.support.verifiers import verify_with_pyjwt

COMPOSE = ROOT / "deploy/docker/compose.yaml"
BAO_IMAGE = "docker.io/openbao/openbao:latest"
PROJECT = "macp-auth-test"

pytestmark = pytest.mark.timeout(BUILD_SECONDS)


def _compose(file: Path) -> list[str]:
    """The command, and the file as it can read it: 1.29, in Debian, knows no project name in the file."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if not shutil.which(command[0]):
            continue
        version = subprocess.run(
            [*command, "version"], capture_output=True, text=True, timeout=60, check=False
        )
        if version.returncode == 0:
            text = COMPOSE.read_text()
            if "version 1." in version.stdout:
                text = text.replace("\nname: macp-auth\n", "\n")
            file.write_text(text)
            return [*command, "-p", PROJECT, "--project-directory", str(COMPOSE.parent), "-f", str(file)]
    pytest.skip("docker compose is missing; install Docker's plugin, or Debian's package docker-compose")


@contextlib.contextmanager
def _health_checks(engine: Engine) -> Iterator[None]:
    """Look after the containers' health: Podman leaves that to systemd, which may be away."""
    ended = threading.Event()

    def look() -> None:
        while engine.is_podman and not ended.wait(0.5):
            listed = engine.run("ps", "-q", "--filter", f"name={PROJECT}", check=False).stdout.split()
            for container in listed:
                engine.run("healthcheck", "run", container, check=False)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_one_command_leads_to_a_token(engine: Engine, image: str, tmp_path: Path) -> None:
    """It prints a token that OpenBao's key has signed; given again, it prints another."""
    command = _compose(tmp_path / "compose.yaml")
    if engine.run("image", "inspect", BAO_IMAGE, check=False).returncode:
        pulled = engine.run("pull", BAO_IMAGE, check=False, within=300)
        if pulled.returncode:
            pytest.skip(f"no image {BAO_IMAGE} here; pull it by hand: {pulled.stderr[:200]}")
    port = free_port()
    env = {**os.environ, "MACP_AUTH_IMAGE": image, "BAO_IMAGE": BAO_IMAGE, "MACP_AUTH_PORT": str(port)}

    def compose(*args: str) -> str:
        run = subprocess.run(
            [*command, *args], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    assert "compose.yaml run --rm token" in COMPOSE.read_text()
    try:
        with _health_checks(engine):
            tokens = [compose("run", "--rm", "token").split()[-1] for _ in range(2)]
            jwks = get(port, "/.well-known/jwks.json")
        for token in tokens:
            assert verify_with_pyjwt(token, jwks)["sub"] == "agent://risk"
        assert jwks["keys"][0]["kid"].startswith("macp-auth-v1-")
    finally:
        compose("down", "--volumes")
