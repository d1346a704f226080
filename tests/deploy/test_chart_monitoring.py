"""What the chart makes for Prometheus and Grafana."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.helm import Manifest, Tools, Values, only
from tools.generate.chart import CHART

RELABELINGS = [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}]
DROPPED = [{"sourceLabels": ["__name__"], "regex": "python_.*", "action": "drop"}]
MONITORS = {"serviceMonitor": "endpoints", "podMonitor": "podMetricsEndpoints"}


def _monitor(tools: Tools, name: str, **more: Any) -> Manifest:
    """The monitor of that name in the values; there is no other."""
    values = {"metrics": {"enabled": True, name: {"enabled": True, **more}}}
    [found] = [each for each in tools.template(values=values) if each["kind"].endswith("Monitor")]
    assert found["kind"].lower() == name.lower()
    return found


@pytest.mark.parametrize("name", MONITORS)
def test_a_monitor_reads_the_port_of_the_metrics(tools: Tools, name: str) -> None:
    """As the job that the rules and the dashboard ask for."""
    [endpoint] = _monitor(tools, name)["spec"][MONITORS[name]]
    job = {"targetLabel": "job", "replacement": "macp-auth"}
    assert endpoint == {
        "port": "metrics",
        "interval": "30s",
        "scrapeTimeout": "10s",
        "relabelings": [job],
    }


@pytest.mark.parametrize("name", MONITORS)
def test_a_monitor_takes_rules_for_labels(tools: Tools, name: str) -> None:
    """The user's come after ours."""
    monitor = _monitor(
        tools,
        name,
        labels={"release": "p"},
        relabelings=RELABELINGS,
        metricRelabelings=DROPPED,
        interval="1m",
    )
    [endpoint] = monitor["spec"][MONITORS[name]]
    assert endpoint["relabelings"][1:] == RELABELINGS
    assert endpoint["metricRelabelings"] == DROPPED
    assert endpoint["interval"] == "1m"
    assert monitor["metadata"]["labels"]["release"] == "p"


def test_a_pod_monitor_finds_the_pods(tools: Tools) -> None:
    """And a pod of a test has no port of metrics."""
    values = {"metrics": {"enabled": True, "podMonitor": {"enabled": True}}}
    manifests = tools.template(values=values, tests=True)
    selector = only(manifests, "PodMonitor")["spec"]["selector"]["matchLabels"].items()
    assert selector <= only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    assert not selector <= only(manifests, "Pod")["metadata"]["labels"].items()


def test_grafana_finds_the_dashboard(tools: Tools) -> None:
    """By the label that the sidecar of its chart looks for; Grafana's own templates are left alone."""
    values = {"metrics": {"enabled": True, "grafanaDashboard": {"enabled": True}}}
    config = only(tools.template(values=values), "ConfigMap")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config["metadata"]["namespace"] == "default"
    [(name, content)] = config["data"].items()
    assert name == "macp-auth.json"
    assert json.loads(content) == json.loads((CHART / "dashboard.json").read_text(encoding="utf-8"))


def test_the_dashboard_goes_where_grafana_looks(tools: Tools) -> None:
    where = {
        "namespace": "123",
        "labels": {"grafana_dashboard": "2"},
        "annotations": {"grafana_folder": "MACP agents"},
    }
    values = {"metrics": {"enabled": True, "grafanaDashboard": {"enabled": True, **where}}}
    metadata = only(tools.template(values=values), "ConfigMap")["metadata"]
    assert (metadata["namespace"], metadata["annotations"]) == ("123", {"grafana_folder": "MACP agents"})
    assert metadata["labels"]["grafana_dashboard"] == "2"


REFUSED: list[tuple[Values, str]] = [
    ({"podMonitor": {"enabled": True}}, "metrics.podMonitor.enabled needs metrics.enabled"),
    ({"grafanaDashboard": {"enabled": True}}, "metrics.grafanaDashboard.enabled needs metrics.enabled"),
    (
        {"enabled": True, "podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}},
        "metrics.serviceMonitor.enabled and metrics.podMonitor.enabled are both true",
    ),
    ({"serviceMonitor": {"relabelings": {}}}, "/serviceMonitor/relabelings': got object, want array"),
    ({"grafanaDashboard": {"namespace": "A"}}, "/grafanaDashboard/namespace': 'A' does not match"),
]  # fmt: skip


@pytest.mark.parametrize(("metrics", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_a_wrong_value_is_refused(tools: Tools, metrics: Values, reason: str) -> None:
    assert reason in " ".join(tools.refusal({"metrics": metrics}).split())
