"""The programs of a cluster. Those of Kubernetes are built from Go modules, once, outside of the tree."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from msgspec import Struct

from tools.support.helm_programs import helm_and_kubectl
from tools.support.programs import require_tool
from tools.support.repository import ROOT, user_cache

VERSION = "1.34.2"
HELM_3 = "v3.17.4"
_GO = ROOT / "tools/cluster/go"
_STAMP = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
_KUBERNETES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    **{
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
    },
}
CNI = Path("/usr/lib/cni")  # where Debian's package puts its plugins


class Programs(Struct, frozen=True):
    """Where the programs are."""

    built: Path
    """The folder of those that ``build`` made."""
    helm: Path
    kubectl: Path

    @property
    def helm3(self) -> Path:
        return self.built / HELM_3 / "helm"

    def path(self, name: str) -> Path:
        return self.built / name


def find_or_build() -> Programs:
    """All programs; the first time, this takes about ten minutes on two cores.

    Raises:
        ProgramMissing: something that no Go module has is not there.
    """
    for name, package in (
        ("containerd", "containerd"),
        ("runc", "runc"),
        ("iptables", "iptables"),
        ("conntrack", "conntrack"),
        ("unshare", "util-linux"),
        ("ip", "iproute2"),
        (str(CNI / "bridge"), "containernetworking-plugins"),
    ):
        require_tool(name, package)
    folder = build_folder()
    if any(not (folder / name).is_file() for name in (*_KUBERNETES, "coredns", f"{HELM_3}/helm")):
        _build(require_tool("go", "golang"), folder)
    return Programs(folder, *helm_and_kubectl())


def build_folder() -> Path:
    """Where they are built: fresh clones share it."""
    return user_cache() / f"kubernetes-{VERSION}" / "bin"


def _build(go: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    major, minor, _ = VERSION.split(".")
    stamps = {"gitVersion": f"v{VERSION}", "gitMajor": major, "gitMinor": minor}
    stamped = [f"-X {package}.{name}={value}" for package in _STAMP for name, value in stamps.items()]
    for name, package in _KUBERNETES.items():
        _go_build(go, _GO / "kubernetes", package, folder / name, stamped)
    _go_build(go, _GO / "dns", ".", folder / "coredns", [])
    if not (folder / HELM_3 / "helm").is_file():
        _go_install_helm(go, folder / HELM_3)


def _go_install_helm(go: str, folder: Path) -> None:
    environment = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0"}
    print(f"building helm {HELM_3}", flush=True)
    # The Kubernetes that its templates see without a cluster; unset, it is 1.20.
    known = [f"-X helm.sh/helm/v3/pkg/chartutil.k8sVersion{part}" for part in ("Major=1", "Minor=32")]
    package = f"helm.sh/helm/v3/cmd/helm@{HELM_3}"
    command = ["nice", go, "install", "-ldflags", " ".join(["-s -w", *known]), package]
    subprocess.run(command, env=environment, check=True)


def _go_build(go: str, module: Path, package: str, program: Path, flags: list[str]) -> None:
    if program.is_file():
        return
    print(f"building {program.name}", flush=True)
    unfinished = program.with_suffix(".part")
    subprocess.run(
        ["nice", go, "build", "-ldflags", " ".join(["-s -w", *flags]), "-o", unfinished, package],
        cwd=module, env={**os.environ, "CGO_ENABLED": "0"}, check=True,
    )  # fmt: skip
    unfinished.rename(program)
