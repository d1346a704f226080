"""The chart as a dependency of another: off, under an alias, twice in a release, with shared globals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml

from tests.deploy.helm import Manifest, Tools, Values, only, pod_spec
from tests.deploy.test_chart import OPTIONS
from tools.generate.chart import CHART

IMAGE = {"repository": "registry.example.com/macp-auth"}
Umbrella = Callable[..., list[Manifest]]


@pytest.fixture
def umbrella(tools: Tools, tmp_path: Path) -> Umbrella:
    """Renders a chart that depends on ours under each of the aliases, as release ``stack``."""

    def render(values: Values, *aliases: str, release: str = "stack") -> list[Manifest]:
        run = _render(tools, tmp_path, values, aliases, release)
        assert run.returncode == 0, run.stderr
        return [manifest for manifest in yaml.safe_load_all(run.stdout) if manifest]

    return render


def _render(tools: Tools, folder: Path, values: Values, aliases: tuple[str, ...], release: str) -> Any:
    dependency = {"name": "macp-auth", "version": "*", "repository": f"file://{CHART}"}
    dependencies = [{**dependency, "alias": alias, "condition": f"{alias}.enabled"} for alias in aliases] or [
        {**dependency, "condition": "macp-auth.enabled"}
    ]
    chart = {"apiVersion": "v2", "name": "umbrella", "version": "0.1.0", "dependencies": dependencies}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(chart))
    update = tools.run("dependency", "update", folder)
    assert update.returncode == 0, update.stderr
    build = tools.run("dependency", "build", folder)
    assert build.returncode == 0, build.stderr
    return tools.run("template", release, folder, "--kube-version", "1.34", values=values)


def _names(manifests: list[Manifest]) -> list[tuple[str, str]]:
    return [(each["kind"], each["metadata"]["name"]) for each in manifests]


def test_a_parent_chart_turns_it_on_and_off(umbrella: Umbrella) -> None:
    """By the condition `macp-auth.enabled`, which the schema knows."""
    manifests = umbrella({"macp-auth": {"enabled": True, "image": IMAGE}})
    assert ("Service", "stack-macp-auth-jwks") in _names(manifests)
    assert umbrella({"macp-auth": {"enabled": False}}) == []


@pytest.mark.parametrize("name", OPTIONS)
def test_a_subchart_renders_as_the_chart_does(tools: Tools, umbrella: Umbrella, name: str) -> None:
    """Also where a value is null by default, which Helm removes from those of a subchart."""
    values = {**OPTIONS[name], "signer": {"type": "jwk-file", "existingSecret": "keys"}}
    values["image"] = {**IMAGE, **values.get("image", {})}
    alone = tools.template(values=values, release="stack", tests=True)
    assert _by_name(umbrella({"macp-auth": values})) == _by_name(alone)


def _by_name(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    return dict(zip(_names(manifests), manifests, strict=True))


def test_two_in_one_release_have_nothing_in_common(umbrella: Umbrella) -> None:
    """No object of one has the name of one of the other, and no selector finds the other's pods."""
    values = {alias: {"image": IMAGE, "metrics": {"enabled": True}} for alias in ("auth", "stack", "st")}
    manifests = umbrella(values, *values)
    names = _names(manifests)
    assert len(names) == len(set(names))
    templates = [each["spec"]["template"] for each in manifests if each["kind"] == "Deployment"]
    tests = [each for each in manifests if each["kind"] == "Pod"]
    assert (len(templates), len(tests)) == (3, 3)
    pods = [each["metadata"]["labels"] for each in [*templates, *tests]]
    selectors = [selector for each in manifests for selector in _selectors(each)]
    assert len(selectors) >= 3 * 6
    for selector in selectors:
        assert len([labels for labels in pods if selector.items() <= labels.items()]) == 1
    for manifest in manifests:
        kubernetes_validate.validate(manifest, "1.34", strict=True)


def _selectors(value: Any) -> list[dict[str, str]]:
    """The label selectors within an object."""
    if isinstance(value, list):
        return [found for each in value for found in _selectors(each)]
    if not isinstance(value, dict):
        return []
    if value.get("kind") == "Service":
        return [value["spec"]["selector"]]
    own = [value["matchLabels"]] if "matchLabels" in value else []
    return own + [found for each in value.values() for found in _selectors(each)]


@pytest.mark.parametrize("release", ["macp-auth", "prod-macp-auth"])
def test_an_alias_that_is_part_of_the_release_name_is_kept(umbrella: Umbrella, release: str) -> None:
    """Else two such aliases would both have only the name of the release."""
    manifests = umbrella(
        {alias: {"image": IMAGE} for alias in ("macp", "auth")}, "macp", "auth", release=release
    )
    deployments = [name for kind, name in _names(manifests) if kind == "Deployment"]
    assert deployments == [f"{release}-auth", f"{release}-macp"]


@pytest.mark.parametrize(
    ("alias", "release", "reason"),
    [
        ("Auth_A", "stack", 'The objects would be named "stack-Auth_A"'),
        ("auth-a", "s" * 50, "which is longer than 55 characters"),
    ],
)
def test_an_alias_that_makes_a_bad_name_is_refused(
    tools: Tools, tmp_path: Path, alias: str, release: str, reason: str
) -> None:
    """With the value to set."""
    run = _render(tools, tmp_path, {alias: {"image": IMAGE}}, (alias,), release)
    message = " ".join(run.stderr.split())
    assert reason in message
    assert "Set fullnameOverride" in message
    named = {alias: {"image": IMAGE, "fullnameOverride": "auth"}}
    assert _render(tools, tmp_path, named, (alias,), release).returncode == 0


def test_globals_are_shared(umbrella: Umbrella) -> None:
    """The registry replaces the chart's own, and each Secret is there once; other globals are allowed."""
    secrets = ["one", {"name": "two"}]
    values = {
        "global": {
            "imageRegistry": "mirror.example.com:5000",
            "imagePullSecrets": secrets,
            "storageClass": "fast",
        },
        "macp-auth": {
            "image": {"registry": "registry.example.com", "repository": "macp-auth", "tag": "1.0"},
            "imagePullSecrets": [{"name": "two"}, {"name": "three"}],
        },
    }
    spec = pod_spec(umbrella(values))
    assert spec["containers"][0]["image"] == "mirror.example.com:5000/macp-auth:1.0"
    assert spec["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}, {"name": "three"}]
    own = only(umbrella({"macp-auth": values["macp-auth"]}), "Deployment")["spec"]["template"]["spec"]
    assert own["containers"][0]["image"] == "registry.example.com/macp-auth:1.0"
