"""Kinds that operators bring, with any content: the API server knows their names and keeps what it gets."""

from __future__ import annotations

from typing import Any

_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_KINDS = (
    ("monitoring.coreos.com", "v1", "ServiceMonitor"),
    ("monitoring.coreos.com", "v1", "PodMonitor"),
    ("monitoring.coreos.com", "v1", "PrometheusRule"),
    ("cert-manager.io", "v1", "Certificate"),
    ("external-secrets.io", "v1", "ExternalSecret"),
    ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
    ("route.openshift.io", "v1", "Route"),
)


def definitions() -> list[dict[str, Any]]:
    return [_definition(*kind) for kind in _KINDS]


def _definition(group: str, version: str, kind: str) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # of k8s.io only what its own process approved may be added
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced",
            "versions": [
                {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": _OPEN}}
            ],
        },
    }
