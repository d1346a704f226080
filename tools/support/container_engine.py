"""A container engine, by its command line: Podman or Docker."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from tools.support.bounded import HANG_SECONDS
from tools.support.programs import ProgramMissing
from tools.support.repository import ROOT

BASE = os.environ.get("MACP_AUTH_TEST_BASE", "docker.io/library/python:3.11-slim-bookworm")
BUILD_SECONDS = 600


class Engine(Struct, frozen=True):
    """``podman`` or ``docker``, which runs containers."""

    name: str

    @property
    def is_podman(self) -> bool:
        return self.name == "podman"

    def run(
        self, *args: str | Path, check: bool = True, within: float = 60, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one command of the engine; ``text`` is its input."""
        run = subprocess.run(
            [self.name, *args], input=text, capture_output=True, text=True, timeout=within, check=False
        )
        assert not check or run.returncode == 0, f"{shlex.join(map(str, args))}\n{run.stdout}{run.stderr}"
        return run

    def build(self, tag: str, *args: str | Path, **build_args: str) -> None:
        self.run("build", "--tag", tag, *_arguments(build_args), *args, within=BUILD_SECONDS)

    def build_ours(self, tag: str, context: Path = ROOT, **build_args: str) -> None:
        """Build our Dockerfile."""
        file = context / "deploy/docker/Dockerfile"
        extra = ["--format", "docker"] if self.is_podman else []
        self.build(tag, *extra, *_pip_secret(context), "--file", file, context, **build_args)

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        [found] = json.loads(self.run(kind, "inspect", name).stdout)
        return dict(found)

    @contextmanager
    def container(self, *args: str) -> Iterator[str]:
        """Run a container in the background, and remove it at the end."""
        identifier = self.run("run", "--detach", *args).stdout.strip().splitlines()[-1]
        try:
            yield identifier
        finally:
            self.run("rm", "--force", *(["--time", "0"] if self.is_podman else []), identifier)

    def port(self, container: str) -> int:
        """The port on this machine of the container's port 3200."""
        return int(self.run("port", container, "3200/tcp").stdout.split()[0].rpartition(":")[2])

    def python(self, container: str, code: str) -> Any:
        """What a line of Python that prints JSON says within the container."""
        return json.loads(self.run("exec", container, "python", "-Ic", code).stdout)


def find_engine() -> Engine:
    """The engine that can run the base image.

    Raises:
        ProgramMissing: none can.
    """
    reason = "podman and docker are missing"
    for name in ("podman", "docker"):
        if not shutil.which(name):
            continue
        engine = Engine(name)
        probe = engine.run("run", "--rm", BASE, "python", "--version", check=False, within=300)
        if probe.returncode == 0:
            return engine
        reason = f"{name}: {(probe.stderr.strip().splitlines() or ['no reason given'])[-1]}"
    raise ProgramMissing(
        f"no container engine runs {BASE}; start Docker or Podman, "
        f"or name another image in MACP_AUTH_TEST_BASE ({reason[:200]})"
    )


def _arguments(build_args: Mapping[str, str]) -> list[str]:
    return [part for name, value in build_args.items() for part in ("--build-arg", f"{name}={value}")]


def _pip_secret(context: Path) -> list[str]:
    """Where this machine's pip gets packages from elsewhere, the build should as well."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.splitlines()
    settings = dict(line.split("=", 1) for line in listed)
    index = {
        name.rpartition(".")[2]: value.strip("'") for name, value in settings.items() if "index-url" in name
    }
    if not index:
        return []
    secret = context / ".cache" / "pip.conf"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in index.items())]))
    return ["--secret", f"id=pip,src={secret}"]


def get(port: int, path: str, body: Any = None) -> Any:
    """The JSON of an answer of the service; with a body, of a POST."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=HANG_SECONDS) as response:
        return json.load(response)
