"""A namespace for each test, and Vault beside the cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cluster.crds import definitions
from tests.cluster.namespace import Namespace
from tools.cluster.node import ADDRESS, API
from tools.cluster.programs import Programs, find_or_build
from tools.support.openbao import OpenBao
from tools.support.programs import ProgramMissing
from tools.support.vault_environment import POLICY

_FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured."""
    if config.stash[_FIGURES]:
        terminalreporter.section("figures")
        for line in config.stash[_FIGURES]:
            terminalreporter.line(line)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the end of the run."""
    return request.config.stash[_FIGURES]


@pytest.fixture(scope="session")
def cluster_folder() -> Path:
    """Where the files of the cluster are."""
    folder = os.environ.get("MACP_AUTH_CLUSTER")
    if not folder:
        raise ProgramMissing("there is no cluster; run: make cluster")
    return Path(folder)


@pytest.fixture(scope="session")
def programs(cluster_folder: Path) -> Programs:  # noqa: ARG001 - without a cluster, nothing is built
    found = find_or_build()
    Namespace("default", found).apply(*definitions())
    return found


@pytest.fixture
def namespace(programs: Programs) -> Iterator[Namespace]:
    """A namespace in which only what Pod Security calls restricted can run; it is gone afterwards."""
    with Namespace(f"test-{uuid4().hex[:8]}", programs) as made:
        yield made


@pytest.fixture
def vault(tmp_path: Path, cluster_folder: Path, namespace: Namespace) -> Iterator[OpenBao]:
    """A server on the node with a key, and a login for the ServiceAccount of the chart in ``namespace``."""
    with OpenBao(tmp_path, host=ADDRESS) as server:
        server.create_key("macp-auth", "ecdsa-p256")
        server.write_policy("macp-auth", POLICY.format(key="macp-auth"))
        client = server.client()
        client.sys.enable_auth_method("kubernetes")
        client.write_data(
            "auth/kubernetes/config",
            data={
                "kubernetes_host": API,
                "kubernetes_ca_cert": (cluster_folder / "pki/ca.pem").read_text(),
                "token_reviewer_jwt": namespace.token_reviewer(),
                "disable_local_ca_jwt": True,
            },
        )
        client.write_data(
            "auth/kubernetes/role/macp-auth",
            data={
                "bound_service_account_names": "macp-auth",
                "bound_service_account_namespaces": namespace.name,
                "audience": "vault",
                "token_policies": "macp-auth",
                "token_ttl": "1h",
            },
        )
        yield server
