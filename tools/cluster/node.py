"""A cluster of one node, from etcd to kube-proxy.

It runs in fresh namespaces of processes, mounts and network, which ``__main__`` makes, and ends with them.
Both families of addresses are routed. No network plugin enforces a NetworkPolicy.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from cryptography import x509

from tools.cluster.images import SANDBOX_IMAGE
from tools.cluster.programs import CNI, Programs
from tools.support.service import wait_until
from tools.support.tls import Authority

ADDRESS, ADDRESS_6 = "172.31.0.1", "fd31::1"
"""Of the node."""
API_SERVICE = "10.96.0.1"
SERVICES, SERVICES_6 = "10.96.0.0/16", "fd00:96::/112"
PODS, PODS_6 = "10.244.0.0/24", "fd00:244::/64"
DOMAIN = "cluster.local"
ISSUER = f"https://kubernetes.default.svc.{DOMAIN}"
"""Of the tokens of ServiceAccounts."""
API = "https://127.0.0.1:6443"
_START_SECONDS = 120  # a bound; it takes about 20
_PRIVATE_FOLDERS = ("/run", "/var/lib/cni", "/var/log/pods", "/var/log/containers", "/var/lib/containerd")
_HOSTS = f"127.0.0.1 localhost\n::1 localhost\n{ADDRESS} node\n"


class Node:
    """The running cluster. Use as a context manager.

    Args:
        folder: where its files go. ``images.tar`` in it has the images. The control group has its name.
        programs: what it is made of.
    """

    def __init__(self, folder: Path, programs: Programs) -> None:
        self._folder = folder
        self._programs = programs
        (folder / "pki").mkdir()
        self._authority = Authority(folder / "pki")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self._folder / "admin.kubeconfig"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            error.add_note(self.logs())
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in reversed(self._processes.values()):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def logs(self) -> str:
        """The last lines of the log of each program."""
        found = []
        for path in sorted(self._folder.glob("*.log")):
            last = path.read_text(errors="replace").splitlines()[-15:]
            found.append("\n".join([f"--- {path.name}", *last]))
        return "\n".join(found)

    def _start(self) -> None:
        self._isolate()
        self._make_certificates()
        self._start_containerd()
        self._start_control_plane()
        self._start_node()
        self._start_dns()
        self._wait(self._node_is_ready, "the node is ready")

    def _isolate(self) -> None:
        """Give this namespace folders and a network of its own."""
        _run("mount", "--make-rprivate", "/")
        for folder in _PRIVATE_FOLDERS:
            Path(folder).mkdir(parents=True, exist_ok=True)
            _run("mount", "-t", "tmpfs", "tmpfs", folder)
        for name, text in (
            ("resolv.conf", f"nameserver {ADDRESS}\nsearch svc.{DOMAIN} {DOMAIN}\noptions ndots:5\n"),
            ("hosts", _HOSTS),
        ):
            mine = self._folder / name
            mine.write_text(text)
            Path("/etc", name).touch()
            _run("mount", "--bind", mine, Path("/etc", name).resolve())
        _run("mount", "--make-rshared", "/")  # kubelet's mounts must reach containers
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "node0", "type", "bridge")
        _run("ip", "address", "add", f"{ADDRESS}/24", "dev", "node0")
        _run("ip", "address", "add", f"{ADDRESS_6}/64", "dev", "node0", "nodad")
        _run("ip", "link", "set", "node0", "up")
        _run("ip", "route", "add", "default", "dev", "node0")
        _run("ip", "-6", "route", "add", "default", "dev", "node0")
        for setting in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            Path("/proc/sys", setting).write_text("1")

    def _make_certificates(self) -> None:
        names: list[x509.GeneralName] = [
            x509.DNSName(name)
            for name in ("localhost", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}")
        ]
        names += [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", ADDRESS, API_SERVICE)]
        self._server = self._authority.issue("apiserver", names=names)
        self._kubelet_client = self._authority.issue("kubelet-client", groups=["system:masters"])
        for name, user, groups in (
            ("admin", "admin", ["system:masters"]),
            ("controller-manager", "system:kube-controller-manager", []),
            ("scheduler", "system:kube-scheduler", []),
            ("kubelet", "system:node:node", ["system:nodes"]),
            ("kube-proxy", "system:kube-proxy", []),
            ("dns", "dns", ["system:masters"]),
        ):
            client = self._authority.issue(name, user, groups=groups)
            self._write_kubeconfig(name, str(client.certificate), str(client.key))

    def _write_kubeconfig(self, name: str, certificate: str, key: str) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "cluster",
                    "cluster": {"server": API, "certificate-authority": str(self._authority.path)},
                }
            ],
            "users": [{"name": name, "user": {"client-certificate": certificate, "client-key": key}}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": name}}],
            "current-context": "cluster",
        }
        self._write(f"{name}.kubeconfig", config)

    def _start_containerd(self) -> None:
        (self._folder / "cni").mkdir()
        ranges = [[{"subnet": PODS}], [{"subnet": PODS_6}]]
        bridge = {
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": ranges,
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        }
        plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
        self._write("cni/10-pods.conflist", {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins})
        (self._folder / "containerd.toml").write_text(
            f"""version = 2
root = "{self._folder}/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{SANDBOX_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI}"
    conf_dir = "{self._folder}/cni"
"""
        )
        self._spawn("containerd", "containerd", "--config", self._folder / "containerd.toml")
        socket = Path("/run/containerd/containerd.sock")
        self._wait(socket.exists, "containerd listens")
        _run("ctr", "--namespace", "k8s.io", "images", "import", self._folder / "images.tar")

    def _start_control_plane(self) -> None:
        self._spawn(
            "etcd",
            self._programs.path("etcd"),
            f"--data-dir={self._folder}/etcd",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=default=http://127.0.0.1:2380",
            "--unsafe-no-fsync",  # it does not outlive its folder
        )
        trust_issuers(self._folder, [])
        service_accounts = self._authority.issue("service-accounts")
        self._spawn(
            "kube-apiserver",
            self._programs.path("kube-apiserver"),
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={ADDRESS}",
            f"--service-cluster-ip-range={SERVICES},{SERVICES_6}",
            f"--tls-cert-file={self._server.certificate}",
            f"--tls-private-key-file={self._server.key}",
            f"--client-ca-file={self._authority.path}",
            f"--kubelet-client-certificate={self._kubelet_client.certificate}",
            f"--kubelet-client-key={self._kubelet_client.key}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={service_accounts.certificate}",
            f"--service-account-signing-key-file={service_accounts.key}",
            f"--authentication-config={self._folder}/authentication.yaml",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
        )
        self._wait(lambda: self._kubectl("get", "--raw", "/readyz") == "ok", "the API server is ready")
        self._spawn(
            "kube-controller-manager",
            self._programs.path("kube-controller-manager"),
            f"--kubeconfig={self._folder}/controller-manager.kubeconfig",
            f"--service-account-private-key-file={service_accounts.key}",
            f"--root-ca-file={self._authority.path}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
        )
        self._spawn(
            "kube-scheduler",
            self._programs.path("kube-scheduler"),
            f"--kubeconfig={self._folder}/scheduler.kubeconfig",
            "--leader-elect=false",
        )

    def _start_node(self) -> None:
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(self._authority.path)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._folder.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "clusterDNS": [ADDRESS],
            "clusterDomain": DOMAIN,
            "resolvConf": "",
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi"},
        }
        self._write("kubelet.yaml", kubelet)
        for path in cgroup_folders(self._folder.name):
            path.mkdir(exist_ok=True)
        self._spawn(
            "kubelet",
            self._programs.path("kubelet"),
            f"--config={self._folder}/kubelet.yaml",
            f"--kubeconfig={self._folder}/kubelet.kubeconfig",
            f"--root-dir={self._folder}/kubelet",
            f"--node-ip={ADDRESS},{ADDRESS_6}",
            "--hostname-override=node",
        )
        proxy = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": f"{PODS},{PODS_6}",
            "clientConnection": {"kubeconfig": str(self._folder / "kube-proxy.kubeconfig")},
            "conntrack": {"maxPerCore": 0},
            "hostnameOverride": "node",
        }
        self._write("kube-proxy.yaml", proxy)
        self._spawn(
            "kube-proxy", self._programs.path("kube-proxy"), f"--config={self._folder}/kube-proxy.yaml"
        )

    def _start_dns(self) -> None:
        (self._folder / "Corefile").write_text(
            f""".:53 {{
  errors
  kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
    kubeconfig {self._folder}/dns.kubeconfig
  }}
}}
"""
        )
        self._spawn("coredns", self._programs.path("coredns"), "-conf", self._folder / "Corefile")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            assert not ended, f"{ended} ended before this: {what}"
            return condition()

        wait_until(holds, within=_START_SECONDS, what=what)

    def _node_is_ready(self) -> bool:
        found = self._kubectl("get", "node", "node", "--output=json")
        conditions = json.loads(found)["status"]["conditions"] if found else []
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def _kubectl(self, *args: str) -> str:
        """What kubectl prints; nothing if it fails."""
        command = [str(self._programs.kubectl), "--kubeconfig", str(self.kubeconfig), *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout

    def _write(self, name: str, content: dict[str, Any]) -> None:
        (self._folder / name).write_text(json.dumps(content))  # JSON is YAML

    def _spawn(self, name: str, *command: str | Path) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment()
            )


def trust_issuers(folder: Path, authenticators: Sequence[dict[str, Any]]) -> None:
    """Let the API server of the cluster in ``folder`` accept JWTs of these: it follows the file."""
    config = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": list(authenticators),
    }
    path = folder / "authentication.yaml"
    path.with_suffix(".new").write_text(json.dumps(config))
    path.with_suffix(".new").rename(path)


def cgroup_folders(name: str) -> list[Path]:
    """The folder of that control group: one, or with version 1 one for each controller."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").is_file():
        return [root / name]
    return [each / name for each in root.iterdir() if each.is_dir() and not each.is_symlink()]


def remove_cgroups(name: str) -> None:
    """Remove what kubelet leaves. Its processes are gone, though the kernel may still count them a moment."""
    for top in cgroup_folders(name):
        for folder, _, _ in os.walk(top, topdown=False):
            wait_until(partial(_removed, Path(folder)), within=5, what=f"{folder} has no processes")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": "/root"}


def _run(*command: str | Path) -> None:
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, f"{command}: {run.stderr}"
