"""docs/kubernetes.md: the commands of the page, in its order."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.namespace import READY_SECONDS, Namespace
from tests.docs.pages import ROOT, read
from tests.docs.terminal import Terminal, assert_as_shown, steps
from tools.cluster.images import IMAGE, NEXT_IMAGE
from tools.cluster.programs import Programs
from tools.support.service import clean_environment

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
