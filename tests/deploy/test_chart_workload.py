"""What platform teams add: labels, containers, objects, names, and how updates, evictions and scaling go."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.helm import Manifest, Tools, Values, only, pod_spec
from tests.deploy.test_chart import OPTIONS, PROXY

JWK_FILE = {"type": "jwk-file", "existingSecret": "keys"}
COMMON = {"cost-center": "42", "app.kubernetes.io/part-of": "macp"}
STANDARD = {"app.kubernetes.io/name": "another", "app.kubernetes.io/component": "another"}


def _selectors(value: Any) -> list[Any]:
    """Whatever selects, at any depth."""
    if isinstance(value, list):
        return [found for each in value for found in _selectors(each)]
    if not isinstance(value, dict):
        return []
    own = [value[key] for key in ("selector", "matchLabels", "podSelector") if key in value]
    return own + [found for each in value.values() for found in _selectors(each)]


def test_common_labels_are_on_every_object_and_in_no_selector(tools: Tools) -> None:
    """So they can change without a new Deployment, and replace no label of the chart."""
    values = {**OPTIONS["everything"], "signer": JWK_FILE, "extraObjects": []}
    values["commonLabels"] = {**COMMON, **STANDARD}
    manifests = tools.template(values=values)
    labelled = [*manifests, only(manifests, "Deployment")["spec"]["template"]]
    without = tools.template(values={**values, "commonLabels": {}})
    for each, before in zip(
        labelled, [*without, only(without, "Deployment")["spec"]["template"]], strict=True
    ):
        assert each["metadata"]["labels"] == {**COMMON, **before["metadata"]["labels"]}
    assert _selectors(manifests) == _selectors(without)


def test_a_label_of_the_pods_wins_over_a_common_one(tools: Tools) -> None:
    values = {"commonLabels": {"team": "a"}, "podLabels": {"team": "b"}}
    manifests = tools.template(values=values)
    assert only(manifests, "Deployment")["metadata"]["labels"]["team"] == "a"
    assert only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]["team"] == "b"


def test_extra_containers_stand_behind_the_service(tools: Tools) -> None:
    """`kubectl logs` and `exec` take the first container."""
    containers = pod_spec(tools.template(values={"extraContainers": [PROXY]}))["containers"]
    assert [each["name"] for each in containers] == ["macp-auth", "proxy"]
    assert containers[1] == PROXY


def test_extra_objects_are_rendered(tools: Tools) -> None:
    """Objects and texts both, and each can name the release."""
    metadata = {"name": '{{ include "macp-auth.fullname" . }}-more'}
    values = {
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"port": "1e3"}},
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {{ .Release.Name }}-text\n",
        ]
    }
    manifests = tools.template(values=values)
    config = only(manifests, "ConfigMap")
    assert (config["metadata"]["name"], config["data"]) == ("macp-auth-more", {"port": "1e3"})
    assert only(manifests, "Secret")["metadata"]["name"] == "macp-auth-text"


DEPLOYMENT = {"minReadySeconds": 0, "revisionHistoryLimit": 0, "progressDeadlineSeconds": 1200000}


def test_values_of_the_deployment(tools: Tools) -> None:
    """A zero is a value; null leaves the cluster's default."""
    values = {**DEPLOYMENT, "deploymentAnnotations": {"reloader.stakater.com/auto": "true"}}
    deployment = only(tools.template(values=values), "Deployment")
    assert DEPLOYMENT.items() <= deployment["spec"].items()
    assert deployment["metadata"]["annotations"] == {"reloader.stakater.com/auto": "true"}
    default = only(tools.template(), "Deployment")
    assert not DEPLOYMENT.keys() & default["spec"].keys()
    assert "annotations" not in default["metadata"]


def test_values_of_the_pod(tools: Tools) -> None:
    values = {
        "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["vault.example"]}],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["192.0.2.53"], "options": [{"name": "ndots", "value": "2"}]},
    }
    assert values.items() <= pod_spec(tools.template(values=values)).items()
    assert not values.keys() & pod_spec(tools.template()).keys()


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({}, {"maxUnavailable": 1}),
        ({"maxUnavailable": "25%"}, {"maxUnavailable": "25%"}),
        ({"minAvailable": 2}, {"minAvailable": 2}),
        ({"minAvailable": "66%"}, {"minAvailable": "66%"}),
    ],
)
def test_a_budget_has_one_bound(tools: Tools, budget: Values, expected: Values) -> None:
    values = {"signer": JWK_FILE, "replicaCount": 3, "podDisruptionBudget": budget}
    spec: Manifest = only(tools.template(values=values), "PodDisruptionBudget")["spec"]
    assert {name: spec[name] for name in ("maxUnavailable", "minAvailable") if name in spec} == expected


def test_the_autoscaler_has_a_behavior(tools: Tools) -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 600}}
    values = {"signer": JWK_FILE, "autoscaling": {"enabled": True, "behavior": behavior}}
    assert only(tools.template(values=values), "HorizontalPodAutoscaler")["spec"]["behavior"] == behavior


def test_the_autoscaler_looks_at_the_service_alone(tools: Tools) -> None:
    """A sidecar that requests no CPU, of the values or injected, would stop it."""
    values = {"signer": JWK_FILE, "autoscaling": {"enabled": True}}
    manifests = tools.template(values=values)
    [metric] = only(manifests, "HorizontalPodAutoscaler")["spec"]["metrics"]
    [container] = pod_spec(manifests)["containers"]
    assert (metric["type"], metric["containerResource"]["container"]) == (
        "ContainerResource",
        container["name"],
    )


SCALED = {"signer": JWK_FILE, "autoscaling": {"enabled": True, "minReplicas": 3}}
REFUSED: list[tuple[Values, str]] = [
    (
        {"podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}},
        "podDisruptionBudget.maxUnavailable and podDisruptionBudget.minAvailable are both set",
    ),
    (
        {"podDisruptionBudget": {"minAvailable": 1}},
        "podDisruptionBudget.minAvailable is 1, and there may be no more than 1 pods",
    ),
    (
        {**SCALED, "podDisruptionBudget": {"minAvailable": 3}},
        "podDisruptionBudget.minAvailable is 3, and there may be no more than 3 pods",
    ),
    (
        {**SCALED, "podDisruptionBudget": {"minAvailable": "67%"}},
        "podDisruptionBudget.minAvailable is 67%, and there may be no more than 3 pods",
    ),
    ({"podDisruptionBudget": {"minAvailable": "100%"}}, "'/podDisruptionBudget/minAvailable': '100%'"),
    ({"minReadySeconds": 600}, "minReadySeconds must be less than progressDeadlineSeconds, which is 600"),
    ({"dnsPolicy": "None"}, "dnsPolicy None needs dnsConfig.nameservers"),
    ({"extraContainers": [{"image": "a"}]}, "at '/extraContainers/0': missing property 'name'"),
    ({"extraObjects": [1]}, "at '/extraObjects/0': got number, want string or object"),
    ({"commonLabels": {"a": 1}}, "at '/commonLabels/a': got number, want string"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_a_contradiction_is_refused(tools: Tools, values: Values, reason: str) -> None:
    assert reason in " ".join(tools.refusal(values).split())
