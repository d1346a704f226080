"""compose.yaml, from nothing to a token by the one command that it shows."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import ROOT
from tools.support.container_engine import BUILD_SECONDS, Engine, get
from tools.support.service import Service, clean_environment, free_port
from tools.support.verifiers import verify_with_pyjwt

COMPOSE = ROOT / "deploy/docker/compose.yaml"
OVERRIDE = ROOT / "deploy/docker/compose.macp-stack.yaml"
BAO_IMAGE = "docker.io/openbao/openbao:latest"
PROJECT = "macp-auth-test"

# As in the files of MACP: a check with node or wget, in one of them a build; what waits there is the runtime.
THEIRS = """
services:
  auth-service:
    image: macp-auth-service:0.5.0
    build: {context: ../auth-service}
    environment:
      PORT: '3200'
      MACP_AUTH_ISSUER: macp-auth-service
      MACP_AUTH_AUDIENCE: macp-runtime
      MACP_AUTH_DEFAULT_TTL_SECONDS: '3600'
      MACP_AUTH_MAX_TTL_SECONDS: '7200'
    healthcheck:
      test: ['CMD', 'node', '-e', "require('http').get('http://localhost:3200/healthz')"]
      interval: 3s
      timeout: 3s
      retries: 10
  without-a-check:
    image: IMAGE
  runtime:
    image: IMAGE
    command: [python, -c, "print('started')"]
    healthcheck: {disable: true}
    depends_on:
      auth-service: {condition: service_healthy}
      without-a-check: {condition: service_healthy}
"""

pytestmark = pytest.mark.timeout(BUILD_SECONDS)


def _compose() -> tuple[list[str], bool]:
    """The command, and whether it is 1.29, which Debian has."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if not shutil.which(command[0]):
            continue
        version = subprocess.run(
            [*command, "version"], capture_output=True, text=True, timeout=60, check=False
        )
        if version.returncode == 0:
            return [*command, "-p", PROJECT], "version 1." in version.stdout
    pytest.skip("docker compose is missing; install Docker's plugin, or Debian's package docker-compose")


def _run(*command: str, env: dict[str, str] | None = None) -> str:
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@contextlib.contextmanager
def _health_checks(engine: Engine) -> Iterator[None]:
    """Look after the containers' health: Podman leaves that to systemd, which may be away."""
    ended = threading.Event()

    def poll() -> None:
        while engine.is_podman and not ended.wait(0.5):
            listed = engine.run("ps", "-q", "--filter", f"name={PROJECT}", check=False).stdout.split()
            for container in listed:
                engine.run("healthcheck", "run", container, check=False)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_the_command_of_the_service_token(service: Service) -> None:
    """It prints a token, also where no container engine shows that."""
    declared = yaml.safe_load(COMPOSE.read_text())["services"]["token"]
    env = {
        name: url.replace("http://macp-auth:3200", service.url)
        for name, url in declared["environment"].items()
    }
    command = [str(Path(sys.executable).parent / declared["command"][0]), *declared["command"][1:]]
    assert verify_with_pyjwt(_run(*command, env=clean_environment(env)).strip(), service.jwks())


def test_one_command_leads_to_a_token(engine: Engine, image: str, tmp_path: Path) -> None:
    """It prints a token that OpenBao's key has signed; given again, it prints another."""
    command, old = _compose()
    file = tmp_path / "compose.yaml"
    text = COMPOSE.read_text()
    file.write_text(text.replace("\nname: macp-auth\n", "\n") if old else text)  # 1.29 knows no such name
    command += ["--project-directory", str(COMPOSE.parent), "-f", str(file)]
    if engine.run("image", "inspect", BAO_IMAGE, check=False).returncode:
        pulled = engine.run("pull", BAO_IMAGE, check=False, within=300)
        if pulled.returncode:
            pytest.skip(f"no image {BAO_IMAGE} here; pull it by hand: {pulled.stderr[:200]}")
    port = free_port()
    env = {**os.environ, "MACP_AUTH_IMAGE": image, "BAO_IMAGE": BAO_IMAGE, "MACP_AUTH_PORT": str(port)}
    assert "compose.yaml run --rm token" in COMPOSE.read_text()
    try:
        with _health_checks(engine):
            tokens = [_run(*command, "run", "--rm", "token", env=env).split()[-1] for _ in range(2)]
            jwks = get(port, "/.well-known/jwks.json")
        for token in tokens:
            assert verify_with_pyjwt(token, jwks)["sub"] == "agent://risk"
        assert jwks["keys"][0]["kid"].startswith("macp-auth-v1-")
    finally:
        _run(*command, "down", "--volumes", env=env)


def test_what_waits_for_a_healthy_service_starts(engine: Engine, image: str, tmp_path: Path) -> None:
    """With the image's own check, and in a file that asks with node, with the override."""
    command, old = _compose()
    override, theirs = OVERRIDE.read_text(), THEIRS.replace("IMAGE", image)
    if old:  # 1.29 does not know !reset
        override = re.sub(r"^ +build: .*\n", "", override, flags=re.MULTILINE)
        theirs = re.sub(r"^ +build: .*\n", "", theirs, flags=re.MULTILINE)
    (tmp_path / "override.yaml").write_text(override)
    (tmp_path / "theirs.yaml").write_text(theirs)
    env = {**os.environ, "MACP_AUTH_IMAGE": image}
    command += ["-f", str(tmp_path / "theirs.yaml"), "-f", str(tmp_path / "override.yaml")]
    try:
        with _health_checks(engine):
            assert _run(*command, "run", "--rm", "runtime", env=env).split()[-1] == "started"
    finally:
        _run(*command, "down", "--volumes", env=env)


def test_the_override_replaces_the_check_and_drops_the_build(tmp_path: Path) -> None:
    """As Compose reads both files, which takes no engine."""
    command, old = _compose()
    if old:
        pytest.skip("Compose 1.29 does not know !reset; install Docker's plugin")
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(THEIRS)
    files = ["-f", str(theirs), "-f", str(OVERRIDE)]
    merged = json.loads(_run(*command, *files, "config", "--format", "json"))["services"]["auth-service"]
    assert merged["image"] == "macp-auth"
    assert "build" not in merged
    assert merged["healthcheck"] == {
        "test": ["CMD", "python", "-I", "/opt/macp-auth/healthcheck.py", "/readyz"],
        "interval": "3s",
        "timeout": "3s",
        "retries": 10,
    }
