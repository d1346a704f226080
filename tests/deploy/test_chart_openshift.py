"""What OpenShift needs: Routes for the keys, DNS on the port of its pods, and no user of the chart's own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.helm import EXAMPLES, Manifest, Tools, Values, only, pod_spec

[EXAMPLE] = [path for path in EXAMPLES if path.stem == "openshift"]
HOST = "auth.apps.example.com"
TLS = {"tlsCertFile": "/tls/tls.crt", "tlsKeyFile": "/tls/tls.key"}
ISSUER = f"https://{HOST}"


def _routes(manifests: list[Manifest]) -> list[dict[str, Any]]:
    return [each["spec"] for each in manifests if each["kind"] == "Route"]


def test_the_keys_and_discovery_are_published(tools: Tools) -> None:
    """At one host, each by its path, from the Service of the keys, and nothing else."""
    manifests = tools.template(EXAMPLE)
    routes = _routes(manifests)
    assert [route.pop("path") for route in routes] == [
        "/.well-known/jwks.json",
        "/.well-known/openid-configuration",
    ]
    assert routes == 2 * [
        {
            "host": HOST,
            "to": {"kind": "Service", "name": "macp-auth-jwks"},
            "port": {"targetPort": "http"},
            "tls": {"termination": "edge"},
        }
    ]
    names = [each["metadata"]["name"] for each in manifests if each["kind"] == "Route"]
    assert names == ["macp-auth-jwks", "macp-auth-oidc"]
    [service] = [
        each["spec"]
        for each in manifests
        if each["kind"] == "Service" and each["metadata"]["name"] == "macp-auth-jwks"
    ]
    assert [(port["name"], port["targetPort"]) for port in service["ports"]] == [("http", "jwks")]


@pytest.mark.parametrize(
    ("config", "termination"), [({}, "edge"), (TLS, "reencrypt"), ({**TLS, "jwksTls": "off"}, "edge")]
)
def test_the_router_speaks_what_the_pods_speak(tools: Tools, config: Values, termination: str) -> None:
    values = {"config": config, "jwksService": {"targetPort": 3201}, "route": {"enabled": True}}
    [route] = _routes(tools.template(values=values))
    assert route["tls"]["termination"] == termination
    assert "host" not in route


def test_the_tls_of_a_route_is_a_value(tools: Tools) -> None:
    tls = {"destinationCACertificate": "PEM", "externalCertificate": {"name": "auth-tls"}}
    values = {
        "config": {**TLS, "issuer": ISSUER},
        "route": {"enabled": True, "host": HOST, "tls": tls},
        "jwksService": {"targetPort": 3201},
    }
    routes = _routes(tools.template(values=values))
    assert [route["tls"] for route in routes] == 2 * [{"termination": "reencrypt", **tls}]


def test_no_route_is_made_by_default(tools: Tools) -> None:
    assert not _routes(tools.template())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"route": {"enabled": True}, "config": {"issuer": ISSUER}}, "https issuer needs route.host"),
        ({"route": {"enabled": True, "tls": {"termination": "passthrough"}}}, "would publish /tokens"),
        ({"route": {"enabled": True, "tls": {"key": "PEM"}}}, "set route.tls.externalCertificate to {name"),
        ({"route": {"path": "/tokens"}}, "at '/route': additional properties 'path' not allowed"),
    ],
)
def test_a_route_to_more_is_refused(tools: Tools, values: Values, reason: str) -> None:
    assert reason in " ".join(tools.refusal(values).split())


def test_dns_is_let_out_to_the_pods_of_openshift(tools: Tools) -> None:
    """On their own port: a policy is applied after the Service's translation (kubernetes-nmstate#1570)."""
    _, dns, _ = only(tools.template(EXAMPLE), "NetworkPolicy")["spec"]["egress"]
    assert dns["ports"] == [{"port": 5353, "protocol": protocol} for protocol in ("UDP", "TCP")]
    [peer] = dns["to"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "openshift-dns"}


def test_the_router_reaches_only_the_keys(tools: Tools) -> None:
    router = {"matchLabels": {"policy-group.network.openshift.io/ingress": ""}}
    rules = only(tools.template(EXAMPLE), "NetworkPolicy")["spec"]["ingress"]
    admitted = [rule for rule in rules if {"namespaceSelector": router} in rule["from"]]
    assert [[port["port"] for port in rule["ports"]] for rule in admitted] == [["jwks"]]


def test_the_cluster_chooses_the_user(tools: Tools) -> None:
    assert pod_spec(tools.template(EXAMPLE))["securityContext"] == {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
