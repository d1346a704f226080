"""No list of an object has two entries of the key by which Kubernetes merges it.

Server-side apply, with which Helm 4 installs and upgrades, fails on them.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.helm import Manifest, Tools, Values, pod_spec
from tests.deploy.test_chart import CUSTOM, OPTIONS, TOPOLOGIES
from tests.deploy.test_chart_vault import LOGINS, vault
from tools.generate.chart import CHART, VALUES

SCHEMAS = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema/v1.34.0-local-strict"
BEHIND_A_PROXY: Values = {
    "containerPort": 3202,
    "config": {"host": "127.0.0.1", "jwksHost": "::", "metricsHost": "::"},
    "service": {"targetPort": 8443},
    "jwksService": {"targetPort": 3201},
    "metrics": {"enabled": True},
}
SETS: dict[str, tuple[tuple[Path, ...], Values]] = {
    **TOPOLOGIES,
    **{method: ((), vault(login)) for method, login in LOGINS.items()},
    "behind a proxy": ((), BEHIND_A_PROXY),
}


@pytest.mark.parametrize("name", SETS)
def test_every_list_has_each_key_once(tools: Tools, name: str) -> None:
    files, values = SETS[name]
    for manifest in tools.template(*files, values=values):
        if manifest["kind"] not in CUSTOM:
            assert list(_repeated(manifest, _schema(manifest))) == []


def test_the_lists_are_those_of_the_api(tools: Tools) -> None:
    """The judge of the test above finds two entries, also where a part of the key has a default."""
    manifest = next(each for each in tools.template() if each["kind"] == "Deployment")
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    container["env"].append({"name": "PORT"})
    container["ports"].append({"containerPort": 3200, "protocol": "TCP"})
    assert [field for field, _ in _repeated(manifest, _schema(manifest))] == ["env", "ports"]


def _repeated(value: Any, schema: dict[str, Any], field: str = "") -> Iterator[tuple[str, Any]]:
    """The keys that two entries of a list have, with the list's field, by the API's own description."""
    if "$ref" in schema:
        schema = _definitions()[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _repeated(inner, schema.get("properties", {}).get(name, {}), name)
    if isinstance(value, list):
        items = schema.get("items", {})
        if keys := schema.get("x-kubernetes-list-map-keys"):
            found = [
                tuple(each.get(key, "TCP" if key == "protocol" else None) for key in keys) for each in value
            ]
            yield from ((field, key) for key in set(found) if found.count(key) > 1)
        for each in value:
            yield from _repeated(each, items, field)


def _schema(manifest: Manifest) -> dict[str, Any]:
    group, _, version = manifest["apiVersion"].rpartition("/")
    names = [manifest["kind"].lower(), group.partition(".")[0], version]
    text = (SCHEMAS / f"{'-'.join(filter(None, names))}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _definitions() -> dict[str, Any]:
    definitions: dict[str, Any] = json.loads((SCHEMAS / "_definitions.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = definitions["$defs"]
    return found


def test_every_variable_of_the_chart_has_a_value(tools: Tools) -> None:
    """In ``extraEnv`` it is refused, with the name of a value that there is."""
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    seen: set[str] = set()
    for files, chosen in SETS.values():
        none: Values = {**chosen, "extraEnv": []}
        container = pod_spec(tools.template(*files, values=none))["containers"][0]
        for variable in {each["name"] for each in container["env"]} - seen:
            seen.add(variable)
            assert _is_a_value(values, _instead_of(tools, variable, files, chosen)), variable
    assert len(seen) >= 30


def _instead_of(tools: Tools, variable: str, files: tuple[Path, ...], values: Values) -> list[str]:
    """The values that the refusal of a variable names."""
    refusal = tools.refusal({**values, "extraEnv": [{"name": variable, "value": "a"}]}, *files)
    assert f"extraEnv sets {variable}" in refusal
    named = refusal.partition(": use ")[2].partition(" instead")[0]
    return re.findall(r"[a-z]\w+(?:\.\w+)+|containerPort", named)


def _is_a_value(values: dict[str, Any], paths: list[str]) -> bool:
    for path in paths:
        inner = values
        for name in path.split("."):
            if name not in inner:
                return False
            inner = inner[name]
    return bool(paths)


@pytest.mark.parametrize("path", sorted((CHART / "templates").rglob("*.*")), ids=lambda path: path.name)
def test_what_the_templates_read_has_no_second_source(tools: Tools, path: Path) -> None:
    """A setting that the rest of the chart follows is not set behind its back."""
    read = set(re.findall(r"Values\.config\.(\w+)", path.read_text(encoding="utf-8")))
    for name in read:
        variable = "MACP_AUTH_" + re.sub("[A-Z]", lambda found: f"_{found[0]}", name).upper()
        assert (
            _instead_of(tools, variable, (), {}) == [f"config.{name}"] or variable == "MACP_AUTH_CALLERS_FILE"
        )


REFUSED: list[tuple[Values, str]] = [
    ({"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "1"}]}, "extraEnv has A twice"),
    (
        {"extraEnv": [{"name": "MACP_AUTH_CALLERS_FILE", "value": "/a"}]},
        "use callers.existingSecret, callers.",
    ),
    (
        {"extraEnv": [{"name": "MACP_AUTH_METRICS_PORT", "value": "1"}]},
        "use metrics.enabled and metrics.port",
    ),
    (
        {**vault(LOGINS["approle"]), "extraEnv": [{"name": "MACP_AUTH_VAULT_SECRET_ID", "value": "a"}]},
        "use signer.vault.auth.existingSecret or signer.vault.auth.file instead",
    ),
    (
        {"callers": {"existingSecret": "a"}, "extraVolumes": [{"name": "callers", "emptyDir": {}}]},
        'have "callers"; change or remove it in extraVolumes',
    ),
    ({"extraVolumes": [{"name": "a"}, {"name": "a"}]}, 'have "a"; change or remove it in extraVolumes'),
    (
        {
            "callers": {"existingSecret": "a"},
            "extraVolumeMounts": [{"name": "a", "mountPath": "/etc/macp-auth/callers"}],
        },
        'have "/etc/macp-auth/callers"; change or remove it in extraVolumeMounts',
    ),
    (
        {"tests": {"bearerAudience": "a", "extraVolumes": [{"name": "bearer", "emptyDir": {}}]}},
        'have "bearer"; change or remove it in tests.extraVolumes',
    ),
    (
        {"tests": {"extraVolumeMounts": [{"name": "a", "mountPath": "/a"}] * 2}},
        'have "/a"; change or remove it in tests.extraVolumeMounts',
    ),
    (
        {"initContainers": [{"name": "macp-auth"}]},
        'have "macp-auth"; change or remove it in extraContainers or',
    ),
    (
        {"initContainers": [{"name": "a", "env": [{"name": "B"}, {"name": "B"}]}]},
        'have "B"; change or remove it in env of the container a',
    ),
    (
        {
            "initContainers": [
                {"name": "a", "ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "TCP"}]}
            ]
        },
        'have "1 TCP"; change or remove it in ports of the container a',
    ),
    (
        {"topologySpreadConstraints": [{"topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}] * 2},
        'have "a DoNotSchedule"; change or remove it in topologySpreadConstraints',
    ),
]


@pytest.mark.parametrize(("values", "reason"), REFUSED, ids=[json.dumps(values) for values, _ in REFUSED])
def test_a_second_entry_is_refused(tools: Tools, values: Values, reason: str) -> None:
    assert reason in " ".join(tools.refusal(values).split())


def test_what_the_chart_does_not_set_is_free(tools: Tools) -> None:
    """Among them the settings without a value, and those whose value is not used."""
    names = [
        "MACP_AUTH_SENDER_PATTERN",
        "MACP_AUTH_VAULT_TIMEOUT_MS",
        "MACP_AUTH_VAULT_CACERT",
        "VAULT_CAPATH",
    ]
    more = [{"name": name, "value": "1"} for name in names]
    [container] = pod_spec(tools.template(values={**vault(LOGINS["jwt"]), "extraEnv": more}))["containers"]
    assert container["env"][-len(more) :] == more


def test_containers_may_use_what_others_use(tools: Tools) -> None:
    """Each container has its own variables and mounts; the same port of another protocol is another."""
    init = {
        "name": "a",
        "env": [{"name": "PORT", "value": "1"}],
        "ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "UDP"}],
    }
    assert pod_spec(tools.template(values={**OPTIONS["everything"], "initContainers": [init]}))
