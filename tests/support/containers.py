"""Containers, where an engine runs; elsewhere a test that needs one is skipped, and says why."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import DockerException, ImageNotFound  # type: ignore[import-untyped]  # it has no types
from testcontainers.core.config import testcontainers_config
from testcontainers.core.docker_client import DockerClient

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the module itself uses what its library deprecates
    from testcontainers.community.vault import VaultContainer


@contextmanager
def vault_container(image: str, root_token: str) -> Iterator[VaultContainer]:
    """Run Vault in its development mode, which keeps nothing."""
    with pytest.MonkeyPatch.context() as patch:
        _point_at_podman(patch)
        _require_image(image)
        # `with` removes the container; what testcontainers would start to remove it is one more image.
        patch.setattr(testcontainers_config, "ryuk_disabled", True)
        container = VaultContainer(image, root_token=root_token)
        with container.with_env("BAO_DEV_ROOT_TOKEN_ID", root_token) as running:
            yield running


def _point_at_podman(patch: pytest.MonkeyPatch) -> None:
    """Docker's library finds Docker by itself, and Podman by DOCKER_HOST only."""
    if os.environ.get("DOCKER_HOST") or Path("/var/run/docker.sock").exists():
        return
    for directory in (os.environ.get("XDG_RUNTIME_DIR", "/run"), "/run"):
        socket = Path(directory) / "podman" / "podman.sock"
        if socket.exists():
            patch.setenv("DOCKER_HOST", f"unix://{socket}")
            return


def _require_image(image: str) -> None:
    with closing(_require_engine()) as client:
        try:
            client.images.get(image)
        except ImageNotFound:
            try:
                client.images.pull(image)
            except (DockerException, requests.RequestException) as error:
                pytest.skip(f"no image {image} here; pull it by hand: {_first_line(error)}")


def _require_engine() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker leaves a socket open that found nobody
        try:
            client = DockerClient().client
            client.ping()
        except (DockerException, requests.RequestException) as error:
            reason = _first_line(error)
        else:
            return client
        gc.collect()  # now, so that it warns here
    pytest.skip(f"no container engine answers; start Docker or Podman: {reason}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
