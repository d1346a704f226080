"""Pods with the chart's values are reached in clusters of each address family, and its Services have them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.helm import Manifest, Tools, only, pod_spec
from tests.docs.pages import ROOT, blocks, read, section
from tests.support.preload import preload
from tools.support.bounded import HANG_SECONDS
from tools.support.programs import require_tool
from tools.support.service import BOOT_SECONDS, Service, clean_environment, free_port

LISTENERS = {"jwksService": {"targetPort": 3201}, "metrics": {"enabled": True}}
NODES = {
    "both families": ("true", ["127.0.0.1", "[::1]"]),
    "IPv4 only": ("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6", ["127.0.0.1"]),
    "IPv6 only": ("ip address delete 127.0.0.1/8 dev lo", ["[::1]"]),
}
IN_A_NETWORK_OF_ITS_OWN = """
import json, sys, urllib.request
from pathlib import Path
from tools.support import service

folder, env, *hosts = sys.argv[1:]
service.free_port = lambda: 3200
started = service.Service(Path(folder), json.loads(env))
started.url = f"http://{hosts[0]}:3200"
with started:
    for host in hosts:
        started.url = f"http://{host}:3200"
        started.mint()
        for url in (f"http://{host}:3201/.well-known/jwks.json", f"http://{host}:9464/metrics"):
            assert urllib.request.urlopen(url, timeout=service.HANG_SECONDS).status == 200
"""
NO_IPV6 = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>

int socket(int domain, int type, int protocol) {
    static __typeof__(socket) *real;
    if (!real) real = dlsym(RTLD_NEXT, "socket");
    if (domain == AF_INET6) return errno = EAFNOSUPPORT, -1;
    return real(domain, type, protocol);
}
"""
"""As with ``ipv6.disable=1`` of the kernel, which a namespace does not have."""


def _env(tools: Tools, values: Any) -> dict[str, str]:
    [container] = pod_spec(tools.template(values=values))["containers"]
    return {each["name"]: each["value"] for each in container["env"]}


@pytest.mark.parametrize(("node", "hosts"), NODES.values(), ids=NODES)
def test_a_pod_listens_on_the_addresses_that_it_has(
    tools: Tools, tmp_path: Path, node: str, hosts: list[str]
) -> None:
    """All three listeners, without a value."""
    require_tool("unshare", "util-linux")
    require_tool("ip", "iproute2")
    if _in_a_network("true").returncode != 0:
        pytest.skip("this user may not make a network namespace; run the tests as root")
    env = json.dumps(_env(tools, LISTENERS))
    command = [sys.executable, "-c", IN_A_NETWORK_OF_ITS_OWN, str(tmp_path), env, *hosts]
    run = _in_a_network(f'set -e; ip link set lo up; {node}; exec "$@"', "sh", *command)
    assert run.returncode == 0, run.stderr


def _in_a_network(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--net", "sh", "-c", script, *args],
        cwd=ROOT, env=clean_environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True, text=True, timeout=BOOT_SECONDS + HANG_SECONDS, check=False,
    )  # fmt: skip


def test_a_pod_listens_where_the_kernel_has_no_ipv6(tools: Tools, tmp_path: Path) -> None:
    ports = {"MACP_AUTH_JWKS_PORT": str(free_port()), "MACP_AUTH_METRICS_PORT": str(free_port())}
    env = {**_env(tools, LISTENERS), **ports, **preload(tmp_path, NO_IPV6)}
    assert env["MACP_AUTH_HOST"] == "::"
    with Service(tmp_path, env) as service:
        service.mint()


def test_all_services_have_the_families_of_the_values(tools: Tools) -> None:
    families = {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}
    manifests = tools.template(values={"service": families, "metrics": {"enabled": True}})
    services = [each["spec"] for each in manifests if each["kind"] == "Service"]
    assert len(services) == 3
    assert all(families.items() <= spec.items() for spec in services)


def test_the_cluster_chooses_the_families(tools: Tools) -> None:
    services = [each["spec"] for each in tools.template() if each["kind"] == "Service"]
    assert not any({"ipFamilyPolicy", "ipFamilies"} & spec.keys() for spec in services)


def test_a_proxy_in_the_pod_can_be_the_only_way_in(tools: Tools) -> None:
    """By the README's values, callers reach the proxy, and the kubelet the listener for the keys."""
    [block] = blocks(section(read("deploy/helm/macp-auth/README.md"), "Addresses"))
    values: dict[str, Any] = yaml.safe_load(block.text)
    values |= {"networkPolicy": {"callers": [{"podSelector": {}}]}, "metrics": {"enabled": True}}
    manifests = tools.template(values=values)
    assert _service(manifests, "macp-auth")["ports"][0]["targetPort"] == 8443
    assert only(manifests, "NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"] == 8443
    assert _asked(manifests) == {("jwks", "HTTP")}
    values["config"] |= {"tlsCertFile": "/tls/tls.crt", "tlsKeyFile": "/tls/tls.key"}
    assert _asked(tools.template(values=values)) == {("jwks", "HTTPS")}
    values["config"]["jwksTls"] = "off"
    assert _asked(tools.template(values=values)) == {("jwks", "HTTP")}


@pytest.mark.parametrize("port", [8443, "web"])
def test_nothing_leads_around_a_proxy(tools: Tools, port: int | str) -> None:
    """Verifiers without a port of their own reach that of callers, where tokens are minted: the proxy's."""
    peers: list[Manifest] = [{"podSelector": {}}]
    values = {"service": {"targetPort": port}, "networkPolicy": {"callers": peers, "verifiers": peers}}
    manifests = tools.template(values=values, tests=True)
    for name in ("macp-auth", "macp-auth-jwks"):
        assert [each["targetPort"] for each in _service(manifests, name)["ports"]] == [port]
    for policy in (each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"):
        assert {each["port"] for rule in policy["ingress"] for each in rule["ports"]} == {port}


def _service(manifests: list[Manifest], name: str) -> Manifest:
    [spec] = [
        each["spec"] for each in manifests if each["kind"] == "Service" and each["metadata"]["name"] == name
    ]
    found: Manifest = spec
    return found


def _asked(manifests: list[Manifest]) -> set[tuple[str, str]]:
    [container] = pod_spec(manifests)["containers"]
    gets = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    return {(get["port"], get["scheme"]) for get in gets}


def test_the_port_in_the_pods_is_a_value(tools: Tools) -> None:
    """The listener, the container and the probes follow it, and the Services keep theirs."""
    manifests = tools.template(values={"containerPort": 8080})
    [container] = pod_spec(manifests)["containers"]
    assert {"name": "PORT", "value": "8080"} in container["env"]
    assert {"name": "http", "containerPort": 8080} in container["ports"]
    assert _service(manifests, "macp-auth")["ports"][0]["port"] == 3200
