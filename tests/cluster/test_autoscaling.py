"""A Deployment keeps its pods when an autoscaler takes it over, and when that is undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.namespace import OUR_IMAGE, RELEASE, Namespace, Values
from tools.generate.chart import CHART
from tools.support.service import wait_until

FIXED: Values = {
    "image": OUR_IMAGE,
    "replicaCount": 4,
    "signer": {"type": "jwk-file", "existingSecret": "keys"},
    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
}
SCALED = {**FIXED, "autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 6}}


@pytest.mark.parametrize("version", ["helm", "helm3"])
def test_no_pod_is_lost(version: str, namespace: Namespace) -> None:
    """4 pods stay 4 while autoscaling is switched on, upgraded, and rolled back to and from."""
    helm: Callable[..., Any] = getattr(namespace, version)
    seen: list[int] = []

    def then(*args: Any, values: Values | None = None) -> None:
        before = namespace.get("deployment", RELEASE)["metadata"]["generation"] if seen else 0
        helm(*args, values=values)
        wait_until(
            lambda: observed(namespace) >= max(before, 1), within=60, what="the controller has seen it"
        )
        seen.append(namespace.replicas())

    then("upgrade", "--install", RELEASE, CHART, values=FIXED)
    then("upgrade", RELEASE, CHART, values=SCALED)
    then("upgrade", RELEASE, CHART, values={**SCALED, "podAnnotations": {"changed": "yes"}})
    then("rollback", RELEASE, "1")
    then("rollback", RELEASE, "2")

    assert seen == [4, 4, 4, 4, 4]


def observed(namespace: Namespace) -> int:
    found: int = namespace.get("deployment", RELEASE).get("status", {}).get("observedGeneration", 0)
    return found
