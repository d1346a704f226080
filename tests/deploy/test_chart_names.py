"""Names that YAML could read as something else, and names that Kubernetes refuses."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest

from tests.deploy.helm import Manifest, Tools, Values, pod_spec
from tools.generate.chart import CHART

pytestmark = pytest.mark.slow  # renders the chart many times

# numbers, booleans, null and dates of YAML 1.1, all of which Kubernetes allows as names
AWKWARD = ["123", "1e3", "0x1f", "0777", "1.5", "2026-11-29", "true", "no", "on", "y", "null"]
VAULT = ["key", "mount", "namespace", "clientCertSecret", "caConfigMap", "caConfigMapKey"]
LOGIN = ["mount", "role", "audience"]
SECRET = [*LOGIN, "roleId", "existingSecret", "existingSecretKey"]
KUBERNETES = ["--kube-version", "1.34"]
FOREIGN = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "HTTPRoute", "Route"}
MONITORS = ["serviceMonitor", "podMonitor"]
PORT = "[a-z0-9-]*[a-z][a-z0-9-]*"


def _named(name: str) -> list[Values]:
    """Values that use the name wherever there is one, and together render every template and branch."""
    pairs = {"a": name}
    word = name if name.isalpha() else ""
    common: dict[str, Any] = {
        "fullnameOverride": word or "auth",
        "nameOverride": word,
        "image": {"registry": name, "repository": name, "tag": name},
        "imagePullSecrets": [{"name": name}],
        "serviceAccount": {"name": name, "annotations": pairs},
        "service": {"annotations": pairs, "targetPort": name if re.fullmatch(PORT, name) else "web"},
        "jwksService": {"annotations": pairs, "targetPort": 3201},
        "ingress": {"enabled": True, "annotations": pairs, "className": name, "hosts": [name]},
        "httpRoute": {"enabled": True, "annotations": pairs, "parentRefs": [{"name": name}]},
        "route": {"enabled": True, "annotations": pairs, "host": name},
        "commonLabels": pairs,
        "deploymentAnnotations": pairs,
        "priorityClassName": name,
        "podAnnotations": pairs,
        "podLabels": pairs,
        "nodeSelector": pairs,
        "extraEnv": [{"name": "A", "value": name}],
        "config": {"issuer": name, "audience": name, "senderPattern": name},
        "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}],
    }
    metrics = {
        "enabled": True,
        "prometheusRule": {"enabled": True, "labels": pairs},
        "grafanaDashboard": {"enabled": True, "labels": pairs, "annotations": pairs},
    }
    vault = dict.fromkeys(VAULT, name) | {"addr": "https://vault"}
    signers: list[Values] = [
        {"type": "env-jwk", "existingSecret": name, "existingSecretKey": name, "kid": name},
        {"type": "jwk-file", "existingSecret": name, "existingSecretKey": name},
        {"type": "vault-transit", "vault": {**vault, "auth": dict.fromkeys(LOGIN, name)}},
        {
            "type": "vault-transit",
            "vault": {**vault, "auth": dict.fromkeys(SECRET, name) | {"method": "approle"}},
        },
        {"type": name},
        {"type": "ephemeral"},
    ]
    return [
        {
            **common,
            "signer": signer,
            "callers": {["existingSecret", "existingConfigMap"][index % 2]: name, "key": name},
            "autoscaling": {"enabled": index % 2 == 0 and signer["type"] != "ephemeral"},
            "metrics": {**metrics, MONITORS[index % 2]: {"enabled": True, "labels": pairs}},
        }
        for index, signer in enumerate(signers)
    ]


def _rendered(tools: Tools, name: str) -> list[Manifest]:
    """The objects as Kubernetes reads them, which 1e3 is a number to; PyYAML takes it for a string."""
    found = []
    rendered: set[str] = set()
    namespace = name.replace(".", "-")
    for values in _named(name):
        run = tools.run("template", name, CHART, "--namespace", namespace, *KUBERNETES, values=values)
        assert run.returncode == 0, run.stderr
        rendered.update(re.findall(r"^# Source: macp-auth/(.+)", run.stdout, re.MULTILINE))
        read = subprocess.run(
            [tools.kubectl, "annotate", "--local", "--filename=-", "--output=json", "read=yes"],
            input=run.stdout, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert read.returncode == 0, read.stderr
        found += json.loads(f"[{read.stdout.replace(chr(10) + '}' + chr(10) + '{', '},{')}]")
    assert rendered == {str(path.relative_to(CHART)) for path in (CHART / "templates").glob("**/*.yaml")}
    return found


def _types(value: Any) -> Any:
    """The types of all fields. The dashboard's is named after the release."""
    if isinstance(value, dict):
        return {key.partition(".json")[1] or key: _types(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_types(each) for each in value]
    return type(value)


@pytest.fixture(scope="module")
def ordinary(tools: Tools) -> list[Manifest]:
    return _rendered(tools, "word")


@pytest.mark.parametrize("name", AWKWARD)
def test_a_name_stays_a_string(tools: Tools, ordinary: list[Manifest], name: str) -> None:
    """Each field has the type that it has with an ordinary name, and Kubernetes takes it."""
    manifests = _rendered(tools, name)
    assert [_types(each) for each in manifests] == [_types(each) for each in ordinary]
    for manifest in manifests:
        if manifest["kind"] not in FOREIGN:
            kubernetes_validate.validate(manifest, "1.34", strict=True)


@pytest.mark.parametrize(
    ("release", "name"),
    [("my.release", "my.release-macp-auth"), ("2fast", "2fast-macp-auth"), ("123", "123-macp-auth")],
)
def test_a_release_whose_name_a_service_cannot_have_is_refused(tools: Tools, release: str, name: str) -> None:
    """Before anything is created; and with the name that the message asks for, it is taken."""
    reason = " ".join(tools.refusal({}, release=release).split())
    assert f'The objects would be named "{name}"' in reason
    assert "Set fullnameOverride" in reason
    manifests = tools.template(values={"fullnameOverride": "auth"}, release=release)
    assert {each["metadata"]["name"] for each in manifests} == {"auth", "auth-jwks"}
    assert pod_spec(manifests)["serviceAccountName"] == "auth"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"signer": {"existingSecret": 123}}, "at '/signer/existingSecret': got number, want string"),
        ({"signer": {"existingSecret": "a..b"}}, "at '/signer/existingSecret': 'a..b' does not match"),
        ({"callers": {"existingConfigMap": 1e3}}, "'/callers/existingConfigMap': got number, want string"),
        ({"priorityClassName": True}, "at '/priorityClassName': got boolean, want string"),
        ({"priorityClassName": "High"}, "at '/priorityClassName': 'High' does not match pattern"),
        ({"imagePullSecrets": ["registry"]}, "at '/imagePullSecrets/0': got string, want object"),
        ({"imagePullSecrets": [{"name": 5}]}, "at '/imagePullSecrets/0/name': got number, want string"),
        ({"nodeSelector": {"pool": 7}}, "at '/nodeSelector/pool': got number, want string"),
        ({"podLabels": {"a": "b" * 64}}, "at '/podLabels/a': maxLength: got 64, want 63"),
        ({"podLabels": {"a": "b c"}}, "at '/podLabels/a': 'b c' does not match pattern"),
        ({"service": {"targetPort": "123"}}, "at '/service/targetPort': '123' does not match pattern"),
        ({"fullnameOverride": "a" * 56}, "at '/fullnameOverride': maxLength: got 56, want 55"),
    ],
    ids=str,
)
def test_a_name_that_kubernetes_refuses_is_refused_first(tools: Tools, values: Values, reason: str) -> None:
    """By the schema, so that no object is created."""
    assert reason in " ".join(tools.refusal(values).split())
