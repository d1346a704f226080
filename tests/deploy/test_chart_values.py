"""The chart's values: all are documented, and a wrong one is refused in words that help."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml

from macp_auth.entrypoints.settings import Settings
from tests.deploy.helm import Tools
from tests.docs.pages import plain, rows, section
from tools.generate.chart import CHART, VALUES, documented

JWK_FILE = {"type": "jwk-file", "existingSecret": "keys"}
VAULT = {"type": "vault-transit", "vault": {"addr": "https://vault:8200"}}
SET_BY_THE_CHART = {"port", "signer", "metrics_port", "jwks_port"}

REFUSED: list[tuple[dict[str, Any], str]] = [
    # the schema: where, and what would be right
    ({"replicaCount": "two"}, "at '/replicaCount': got string, want integer"),
    ({"replicaCount": -1}, "at '/replicaCount': minimum: got -1, want 0"),
    ({"replicas": 3}, "additional properties 'replicas' not allowed"),
    ({"config": {"maxTTLSeconds": 60}}, "at '/config': additional properties 'maxTTLSeconds' not allowed"),
    ({"config": {"maxTtlSeconds": 0}}, "at '/config/maxTtlSeconds': minimum: got 0, want 1"),
    ({"config": {"workers": "2"}}, "at '/config/workers': got string, want null or integer"),
    ({"config": {"issuer": ""}}, "at '/config/issuer': minLength: got 0, want 1"),
    ({"image": {"pullPolicy": "Sometimes"}}, "must be one of 'Always', 'IfNotPresent', 'Never'"),
    ({"fullnameOverride": "auth.example"}, "at '/fullnameOverride': 'auth.example' does not match pattern"),
    ({"image": {"repository": "registry.example.com/a:1.0"}}, "at '/image/repository': 'registry.example"),
    ({"image": {"digest": "abc"}}, "at '/image/digest': 'abc' does not match pattern"),
    ({"signer": {"algorithm": "HS256"}}, "value must be one of '', 'RS256', 'ES256'"),
    ({"signer": {"type": ""}}, "at '/signer/type': '' does not match pattern"),
    ({"signer": {"key": "{}"}}, "at '/signer': additional properties 'key' not allowed"),
    ({"signer": {"vault": {"addr": "vault:8200"}}}, "does not match pattern '^(https?://.+)?$'"),
    ({"networkPolicy": {"callers": {"podSelector": {}}}}, "'/networkPolicy/callers': got object, want array"),
    # Helm creates the pods also if the API refuses their NetworkPolicy
    ({"networkPolicy": {"callers": [{}]}}, "'/networkPolicy/callers/0': minProperties: got 0, want 1"),
    (
        {"networkPolicy": {"verifiers": [{"namespaceSelector": {}, "podSelectors": {}}]}},
        "'/networkPolicy/verifiers/0': additional properties 'podSelectors' not allowed",
    ),
    (
        {"networkPolicy": {"monitoring": [{"podSelector": {"app": "a"}}]}},
        "'/networkPolicy/monitoring/0/podSelector': additional properties 'app' not allowed",
    ),
    ({"networkPolicy": {"callers": [{"ipBlock": "10.0.0.0/8"}]}}, "ipBlock': got string, want object"),
    ({"networkPolicy": {"callers": [{"ipBlock": {"cidr": "10.0.0.1"}}]}}, "ipBlock/cidr': '10.0.0.1' doe"),
    ({"networkPolicy": {"egress": [{"port": 8200}]}}, "egress/0': additional properties 'port' not allowed"),
    ({"service": {"port": 70000}}, "at '/service/port': maximum: got 70,000, want 65,535"),
    ({"podDisruptionBudget": {"maxUnavailable": 0}}, "maxUnavailable': minimum: got 0, want 1"),
    ({"metrics": {"port": 80}}, "at '/metrics/port': minimum: got 80, want 1,024"),
    ({"metrics": {"serviceMonitor": {"interval": 30}}}, "interval': got number, want string"),
    ({"readinessProbe": {"path": "/healthz"}}, "must be one of '/readyz/keys', '/readyz'"),
    ({"extraEnv": {"A": "b"}}, "at '/extraEnv': got object, want array"),
    ({"extraEnv": [{"name": "A", "value": 1}]}, "at '/extraEnv/0/value': got number, want string"),
    # the templates: what can't go together, and why
    ({"image": {"repository": ""}}, "image.repository is empty, and no image is published. Build one with"),
    ({"replicaCount": 2}, "one replica, and the values ask for up to 2: each pod makes a key of its own"),
    ({"autoscaling": {"enabled": True}}, "ephemeral allows one replica, and the values ask for up to 6"),
    ({"signer": {"type": "env-jwk"}}, "signer.type env-jwk needs signer.existingSecret"),
    ({"signer": {"type": "jwk-file"}}, "signer.type jwk-file needs signer.existingSecret"),
    ({"signer": {"type": "vault-transit"}}, "signer.type vault-transit needs signer.vault.addr"),
    (
        {"signer": JWK_FILE, "autoscaling": {"enabled": True, "maxReplicas": 1}},
        "autoscaling.maxReplicas is less than autoscaling.minReplicas",
    ),
    ({"callers": {"file": "a"}}, "at '/callers': additional properties 'file' not allowed"),
    (
        {"callers": {"existingSecret": "a", "existingConfigMap": "a"}},
        "callers.existingSecret and callers.existingConfigMap are both set",
    ),
    (
        {"callers": {"existingSecret": "a"}, "config": {"callersFile": "/a"}},
        "config.callersFile is set, and so is callers.existingSecret",
    ),
    ({"config": {"callersMode": "report"}}, "config.callersMode report needs a callers file"),
    ({"terminationGracePeriodSeconds": 14}, "must be 10 or more above preStopSleepSeconds"),
    (
        {"signer": JWK_FILE, "autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}},
        "autoscaling.enabled needs resources.requests.cpu",
    ),
    ({"metrics": {"port": 3200}}, "metrics.port is containerPort, where the service listens"),
    ({"jwksService": {"targetPort": 3200}}, "jwksService.targetPort is 3200, where the service listens"),
    (
        {"jwksService": {"targetPort": 9464}, "metrics": {"enabled": True}},
        "jwksService.targetPort is 9464, where the service listens",
    ),
    (
        {"jwksService": {"enabled": False, "targetPort": 3201}},
        "jwksService.targetPort needs jwksService.enabled",
    ),
    ({"jwksService": {"targetPort": 80}}, "at '/jwksService/targetPort': minimum: got 80, want 1,024"),
    ({"config": {"host": "127.0.0.1"}}, "config.host is only reached from within the pod, so the kubelet's"),
    ({"config": {"host": None}}, "config.host is only reached from within the pod"),
    (
        {"config": {"host": "::1", "jwksHost": "localhost"}, "jwksService": {"targetPort": 3201}},
        "or set jwksService.targetPort, and config.jwksHost to",
    ),
    (
        {"config": {"host": "::1", "jwksHost": "::"}, "jwksService": {"targetPort": 3201}},
        'leaves callers no way in: set it to "::", or set service.targetPort',
    ),
    (
        {
            "config": {"host": "::1", "jwksHost": "::"},
            "jwksService": {"targetPort": 3201},
            "service": {"targetPort": "proxy"},
        },
        "Set containerPort to another port, for example 3202",
    ),
    (
        {
            "config": {"host": "::1", "jwksHost": "::"},
            "jwksService": {"targetPort": 3201},
            "service": {"targetPort": "proxy", "port": 443},
            "metrics": {"enabled": True},
        },
        "config.metricsHost is only reached from within the pod",
    ),
    (
        {"config": {"jwksHost": "127.0.0.1"}, "jwksService": {"targetPort": 3201}},
        "config.jwksHost is only reached from within the pod, so jwksService leads nowhere: set it to",
    ),
    (
        {"service": {"targetPort": 3201}, "jwksService": {"targetPort": 3201}},
        "or a proxy (service.targetPort); choose another",
    ),
    (
        {"service": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6", "IPv4"]}},
        "service.ipFamilyPolicy SingleStack allows one of service.ipFamilies",
    ),
    ({"service": {"targetPort": "8443"}}, "at '/service/targetPort': '8443' does not match pattern"),
    ({"containerPort": 80}, "at '/containerPort': minimum: got 80, want 1,024"),
    ({"service": {"ipFamilyPolicy": "Dual"}}, "must be one of '', 'SingleStack', 'PreferDualStack'"),
    ({"service": {"ipFamilies": ["IPv4", "IPv4"]}}, "at '/service/ipFamilies': items at 0 and 1 are equal"),
    ({"metrics": {"serviceMonitor": {"enabled": True}}}, "serviceMonitor.enabled needs metrics.enabled"),
    ({"metrics": {"prometheusRule": {"enabled": True}}}, "prometheusRule.enabled needs metrics.enabled"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "reason"), REFUSED, ids=[json.dumps(values) for values, _ in REFUSED])
def test_a_wrong_value_is_refused_with_a_reason(tools: Tools, values: dict[str, Any], reason: str) -> None:
    """The message names the value and says what would be right."""
    assert reason in " ".join(tools.refusal(values).split())


@pytest.mark.parametrize(
    "values", [{}, {"signer": JWK_FILE}, {"signer": VAULT}], ids=["default", "file", "vault"]
)
def test_good_values_are_taken(tools: Tools, values: dict[str, Any]) -> None:
    """The table above refuses for the reason that it gives, and not because nothing is taken."""
    assert tools.template(values=values)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("config", "at '': missing property 'config'"),
        ("tests", "at '': missing property 'tests'"),
        ("networkPolicy.enabled", "at '/networkPolicy': missing property 'enabled'"),
        ("readinessProbe.path", "at '/readinessProbe': missing property 'path'"),
        ("metrics.podMonitor", "at '/metrics': missing property 'podMonitor'"),
        ("metrics.grafanaDashboard.labels", "at '/metrics/grafanaDashboard': missing property 'labels'"),
        ("signer.vault.auth", "at '/signer/vault': missing property 'auth'"),
    ],
)
def test_null_in_the_place_of_what_the_templates_need_is_refused(
    tools: Tools, path: str, reason: str
) -> None:
    """By the schema, as are the values of an older chart (`--reuse-values`), which lack new ones."""
    values: Any = None
    for name in reversed(path.split(".")):
        values = {name: values}
    assert reason in " ".join(tools.refusal(values).split())


def test_every_group_of_values_is_required() -> None:
    """A template reads within it."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    groups = {path.rpartition(".")[0] for path in _leaves(_values())} - {""}
    assert groups <= set(_required(schema))


def _required(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    yield from (f"{prefix}{name}" for name in schema.get("required", []))
    for name, inner in schema.get("properties", {}).items():
        yield from _required(inner, f"{prefix}{name}.")


def test_every_setting_of_the_service_is_a_value() -> None:
    """`config` has each setting that the chart does not set itself, under the same name in camel case."""
    settings = {field.name for field in msgspec.structs.fields(Settings)} - SET_BY_THE_CHART
    names = {re.sub(r"_(\w)", lambda found: found[1].upper(), setting) for setting in settings}
    assert set(_values()["config"]) == names


def test_the_schema_knows_exactly_the_values() -> None:
    """A value that is new, or gone, is so in both files."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert set(_schema_leaves(schema)) - {"enabled"} == set(_leaves(_values()))


def test_every_value_has_a_row_in_the_readme() -> None:
    """Each value has its comment, in values.yaml and so in the README."""
    text = VALUES.read_text(encoding="utf-8")
    assert {path for path, _ in documented(text)} == set(_leaves(_values()))
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    assert [plain(name) for name, _, _ in rows(section(readme, "Values"))] == [
        path for path, _ in documented(text)
    ]


def _values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    return values


AS_IN_KUBERNETES = {"podSecurityContext", "securityContext", "resources", "metrics.grafanaDashboard.labels"}
"""Values that are an object of Kubernetes, or a part of one: one row each."""


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and value and path not in AS_IN_KUBERNETES:
            yield from _leaves(value, f"{path}.")
        else:
            yield path


def _schema_leaves(schema: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, inner in schema["properties"].items():
        path = f"{prefix}{name}"
        if "properties" in inner:
            assert path == "global" or inner["additionalProperties"] is False, path
            yield from _schema_leaves(inner, f"{path}.")
        else:
            yield path
