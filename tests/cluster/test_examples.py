"""The example values: installed, upgraded from each to each, rolled back and removed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.namespace import OUR_IMAGE, RELEASE, Namespace
from tools.generate.chart import CHART
from tools.support.repository import ROOT
from tools.support.service import wait_until

EXAMPLES = sorted((ROOT / "deploy/helm/examples").glob("*.yaml"))
ON_TOP = {"monitoring.yaml": "jwk-file.yaml"}  # its comment says so
KINDS = "deployment,service,secret,configmap,serviceaccount,networkpolicy,poddisruptionbudget,hpa,ingress"


def files(example: Path) -> list[str | Path]:
    below = [example.with_name(ON_TOP[example.name])] if example.name in ON_TOP else []
    return [part for file in (*below, example) for part in ("--values", file)]


def tour(nodes: list[Path]) -> list[Path]:
    """A walk that goes from each node to each other one once."""
    walk = [nodes[0]]
    for length in range(2, len(nodes) + 1):
        newest = nodes[length - 1]
        walk += [part for old in nodes[: length - 1][::-1] for part in (newest, old)]
    return walk


@pytest.mark.parametrize("version", ["helm", "helm3"])
@pytest.mark.timeout(900)
def test_each_example_becomes_each_other(version: str, namespace: Namespace, figures: list[str]) -> None:
    helm: Callable[..., Any] = getattr(namespace, version)
    walk = tour(EXAMPLES)
    for example in walk:
        helm("upgrade", "--install", RELEASE, CHART, *files(example), values={"image": OUR_IMAGE})
    for _ in range(3):
        helm("rollback", RELEASE)
    helm("uninstall", RELEASE)

    wait_until(lambda: not left(namespace), within=60, what="nothing is left of the release")
    figures.append(f"{version}: {len(walk) - 1} upgrades between {len(EXAMPLES)} examples")
    assert set(pairwise(walk)) >= {(old, new) for old in EXAMPLES for new in EXAMPLES if old != new}


def left(namespace: Namespace) -> str:
    return namespace.kubectl(
        "get", KINDS, f"--selector=app.kubernetes.io/instance={RELEASE}", "--output=name"
    )
