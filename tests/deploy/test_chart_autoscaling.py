"""With an autoscaler, no upgrade and no rollback has fewer pods than there are, or than the least.

Helm stores what it rendered, and applies that again in a rollback. What it renders depends on the live
Deployment and on who owns its replicas. So a fake API server shows the chart each state that a real one had
(1.34.2, with Helm 3.17 and 4.1).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.helm import REQUIRED, Manifest, Tools, Values, only
from tests.support.fake_server import FakeServer, Reply, Request
from tools.generate.chart import CHART

VALUES = {"signer": {"type": "jwk-file", "existingSecret": "keys"}, "autoscaling": {"enabled": True}}
KINDS = {
    "/api/v1": ["Service", "ServiceAccount"],
    "/apis/apps/v1": ["Deployment"],
    "/apis/autoscaling/v2": ["HorizontalPodAutoscaler"],
    "/apis/networking.k8s.io/v1": ["NetworkPolicy"],
    "/apis/policy/v1": ["PodDisruptionBudget"],
}
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


class Cluster:
    """An API server that knows one Deployment, if that."""

    def __init__(self, deployment: Manifest | None) -> None:
        self._answers: dict[str, Any] = {
            "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.2"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "groups": [_group(path) for path in KINDS if "/apis/" in path]},
            DEPLOYMENTS: {"kind": "DeploymentList", "apiVersion": "apps/v1", "items": []},
            **{path: _resources(path) for path in KINDS},
        }
        if deployment:
            self._answers[f"{DEPLOYMENTS}/macp-auth"] = deployment
        self.asked: list[str] = []

    def __call__(self, request: Request) -> Reply:
        path = request.path.partition("?")[0]
        self.asked.append(path)
        if path in self._answers:
            return Reply(200, self._answers[path])
        return Reply(404, {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})


def _resources(path: str) -> dict[str, Any]:
    resources = [
        {"name": f"{kind.lower()}s", "kind": kind, "namespaced": True, "verbs": ["get", "list"]}
        for kind in KINDS[path]
    ]
    version = path.removeprefix("/apis/").removeprefix("/api/")
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}


def _group(path: str) -> dict[str, Any]:
    version = path.removeprefix("/apis/")
    name, _, of_group = version.partition("/")
    served = {"groupVersion": version, "version": of_group}
    return {"name": name, "versions": [served], "preferredVersion": served}


def _live(replicas: int, *owners: tuple[str, str, list[str]]) -> Manifest:
    """The Deployment, and the fields of its spec that each manager owns by each operation."""
    managed = [
        {
            "manager": manager,
            "operation": operation,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {f"f:{field}": {} for field in fields}},
        }
        for manager, operation, fields in owners
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "macp-auth",
            "namespace": "default",
            "labels": {"app.kubernetes.io/managed-by": "Helm"},
            "annotations": {
                "meta.helm.sh/release-name": "macp-auth",
                "meta.helm.sh/release-namespace": "default",
            },
            "managedFields": managed,
        },
        "spec": {"replicas": replicas},
    }


HELM_4 = ("helm", "Apply", ["replicas", "selector", "template"])
HELM_4_WITHOUT = ("helm", "Apply", ["selector", "template"])
HELM_3 = ("helm", "Update", ["replicas", "selector", "template"])
HELM_3_WITHOUT = ("helm", "Update", ["selector", "template"])
AUTOSCALER = ("kube-controller-manager", "Update", ["replicas"])
ANOTHER = ("labeller", "Apply", ["paused"])


def _replicas(tools: Tools, folder: Path, cluster: Cluster, values: Values) -> int | None:
    """What the Deployment says that an upgrade on that cluster would apply."""
    with FakeServer(cluster) as server:
        config = folder / "kubeconfig"
        config.write_text(
            yaml.safe_dump(
                {
                    "clusters": [{"name": "fake", "cluster": {"server": server.url}}],
                    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "nobody"}}],
                    "current-context": "fake",
                }
            )
        )
        options: list[str | Path] = [
            "--dry-run=server",
            "--disable-openapi-validation",
            "--kubeconfig",
            config,
        ]
        run = tools.run("template", "macp-auth", CHART, "--values", REQUIRED, *options, values=values)
    assert run.returncode == 0, run.stderr
    manifests = [manifest for manifest in yaml.safe_load_all(run.stdout) if manifest]
    replicas: int | None = only(manifests, "Deployment")["spec"].get("replicas")
    return replicas


@pytest.mark.parametrize(
    ("live", "replicas"),
    [
        (None, 2),
        (_live(4, HELM_4), 4),
        (_live(1, HELM_4), 2),
        (_live(0, HELM_4), 2),
        (_live(5, HELM_4_WITHOUT, AUTOSCALER), None),
        (_live(5, HELM_4_WITHOUT), None),
        (_live(5, HELM_4, AUTOSCALER), 5),
        (_live(4, HELM_3), 4),
        (_live(5, HELM_3_WITHOUT, AUTOSCALER), 5),
        (_live(5, ANOTHER, HELM_3_WITHOUT, AUTOSCALER), 5),
        (_live(5, HELM_4_WITHOUT, AUTOSCALER, HELM_3_WITHOUT), 5),
    ],
    ids=[
        "first installation: the least",
        "switched on, Helm 4: as many as there are",
        "fewer than the least",
        "scaled to none, where an autoscaler does nothing",
        "Helm 4, scaled: stating another number would conflict",
        "Helm 4, scaled, when nobody owned it: no more is needed",
        "Helm 4, owned by both",
        "switched on, Helm 3: as many as there are",
        "Helm 3, scaled: leaving it out would set 1",
        "Helm 3, scaled, and another tool applies something",
        "Helm 4, scaled, then Helm 3: Helm 4 continues as Helm 3 does",
    ],
)
def test_replicas_with_an_autoscaler(
    tools: Tools, tmp_path: Path, live: Manifest | None, replicas: int | None
) -> None:
    """Never fewer than there are, never fewer than the least, and left out where that is safe."""
    assert _replicas(tools, tmp_path, Cluster(live), VALUES) == replicas


def test_without_an_autoscaler_nothing_is_looked_up(tools: Tools, tmp_path: Path) -> None:
    """An account that may not list Deployments can install the chart."""
    cluster = Cluster(None)
    assert _replicas(tools, tmp_path, cluster, {**VALUES, "autoscaling": {"enabled": False}}) == 1
    assert DEPLOYMENTS not in cluster.asked


def test_without_a_cluster_the_autoscaler_alone_decides(tools: Tools) -> None:
    """Argo CD renders so, and would set the number back at each synchronisation."""
    manifests = tools.template(values=VALUES)
    assert "replicas" not in only(manifests, "Deployment")["spec"]
    assert only(manifests, "HorizontalPodAutoscaler")["spec"]["maxReplicas"] == 6
