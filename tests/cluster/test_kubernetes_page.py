"""docs/kubernetes.md: the commands of the page, in its order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.namespace import OUR_IMAGE, READY_SECONDS, RELEASE, Namespace
from tests.docs.pages import ROOT, read
from tests.docs.terminal import Terminal, assert_as_shown, steps
from tests.docs.vault_procedures import vault_environment
from tools.cluster.images import IMAGE, NEXT_IMAGE
from tools.cluster.programs import Programs
from tools.generate.chart import CHART
from tools.support.openbao import OpenBao
from tools.support.service import clean_environment, wait_until

NAMESPACE = "identity"  # the page creates it, and deletes it at the end
HERE = {
    "registry.example.com/macp-auth": IMAGE.rpartition(":")[0],
    "tag: 0.1.0": f"tag: {IMAGE.rpartition(':')[2]}",
    "tag: 0.2.0": f"tag: {NEXT_IMAGE.rpartition(':')[2]}",
}


@pytest.fixture
def terminal(tmp_path: Path, programs: Programs) -> Iterator[Terminal]:
    """A shell in a checkout, with a kubeconfig of its own, because the page changes it."""
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    kubeconfig = str(shutil.copy(os.environ["KUBECONFIG"], tmp_path))
    folders = [programs.kubectl.parent, programs.helm.parent, Path(sys.prefix, "bin"), os.environ["PATH"]]
    path = os.pathsep.join(map(str, folders))
    terminal = Terminal(tmp_path, {**clean_environment(), "KUBECONFIG": kubeconfig, "PATH": path})
    try:
        yield terminal
    finally:
        terminal.close()
        Namespace("default", programs).kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")


@pytest.mark.timeout(900)
def test_the_commands_of_the_page_work_in_order(terminal: Terminal, programs: Programs) -> None:
    """But for the name of the image, which `make cluster` has built and not pushed."""
    replaced = set()
    for commands, shown in steps(read("docs/kubernetes.md")):
        if commands.startswith("docker build"):
            continue
        for written, here in HERE.items():
            replaced |= {written} if written in commands else set()
            commands = commands.replace(written, here)  # noqa: PLW2901 - each in turn
        if shown and "exit code" in shown.text:
            status, output = terminal.look(commands)
            assert status != 0
        else:
            output = terminal.run(commands, within=READY_SECONDS)
        if shown:
            assert_as_shown(shown, output)

    assert replaced == HERE.keys()
    assert not Namespace("default", programs).exists("namespace", NAMESPACE)


def test_pods_become_ready_after_the_commands_for_vault(
    namespace: Namespace, vault: OpenBao, tmp_path: Path
) -> None:
    """They wait for Vault, and the commands that Helm prints are all that is missing."""
    vault.client().delete("auth/kubernetes/role/macp-auth")
    vault.client().sys.delete_policy("macp-auth")
    signer = {"type": "vault-transit", "vault": {"addr": vault.url}}
    printed = namespace.helm("install", RELEASE, CHART, values={"image": OUR_IMAGE, "signer": signer})
    wait_until(
        lambda: "not ready" in log_of_the_pod(namespace), within=READY_SECONDS, what="a pod that waits"
    )

    lines = re.findall(r"^(?:  .*)?\n", printed.partition("Vault must")[2], re.MULTILINE)
    commands = textwrap.dedent("".join(lines))
    environment = vault_environment(tmp_path, VAULT_ADDR=vault.url, VAULT_TOKEN=vault.root_token)
    subprocess.run(["bash", "-e"], input=commands, env=environment, text=True, check=True, timeout=60)

    namespace.wait_until_rolled_out()
    [pod] = namespace.pods()
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def log_of_the_pod(namespace: Namespace) -> str:
    """Empty before its container runs."""
    [pod] = namespace.pods()
    states = [status["state"] for status in pod["status"].get("containerStatuses", [])]
    runs = any("running" in state for state in states)
    return namespace.kubectl("logs", pod["metadata"]["name"]) if runs else ""
