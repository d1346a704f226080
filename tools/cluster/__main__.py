"""``make cluster``: builds what a cluster needs, starts one, and runs a command beside it.

The command, by default the tests of the chart on a cluster, sees ``KUBECONFIG`` and ``MACP_AUTH_CLUSTER``.
It reaches pods and Services by their addresses and names. All runs in namespaces of its own: processes,
mounts and network are gone when the command ends. Nothing beyond can be reached from within. It needs root.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.cluster.images import save_images
from tools.cluster.node import Node, remove_cgroups
from tools.cluster.programs import Programs, find_or_build
from tools.support.programs import ProgramMissing

_TESTS = [sys.executable, "-m", "pytest", "tests/cluster"]
_NAMESPACES = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--net"]


def main() -> None:
    if sys.argv[1:2] == ["--within"]:
        _within(Path(sys.argv[2]), sys.argv[3:])
    if os.geteuid() != 0:
        sys.exit("make cluster needs root: kubelet and containerd do")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else unshare would stay, with all in it
    with tempfile.TemporaryDirectory(
        prefix="macp-auth-cluster-"
    ) as folder:  # short: the paths of sockets are in it
        try:
            find_or_build()
            save_images(Path(folder, "images.tar"))
        except ProgramMissing as error:
            sys.exit(str(error))
        command = [sys.executable, "-m", "tools.cluster", "--within", folder, *(sys.argv[1:] or _TESTS)]
        try:
            status = subprocess.run([*_NAMESPACES, *command], check=False).returncode
        finally:
            remove_cgroups(Path(folder).name)
    sys.exit(status)


def _within(folder: Path, command: list[str]) -> None:
    """Run the command beside a cluster, as the first process of the namespaces."""
    programs: Programs = find_or_build()
    with Node(folder, programs) as node:
        environment = {
            **os.environ,
            "KUBECONFIG": str(node.kubeconfig),
            "MACP_AUTH_CLUSTER": str(folder),
            "PATH": f"{programs.kubectl.parent}:{programs.helm.parent}:{os.environ['PATH']}",
        }
        sys.exit(subprocess.run(command, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
