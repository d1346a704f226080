"""What leads out of the cluster: the keys by Ingress and HTTPRoute, and Services of other types."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.deploy.helm import Manifest, Tools, Values, only
from tests.docs.pages import blocks, read, section

KEYS, DISCOVERY = "/.well-known/jwks.json", "/.well-known/openid-configuration"
INGRESS: dict[str, Any] = {"enabled": True, "hosts": ["auth.example.com", "*.example.org"]}
ROUTE: dict[str, Any] = {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}]}
KEYS_ONLY: dict[str, Any] = {"targetPort": 3201}
BOTH: dict[str, Any] = {"ingress": INGRESS, "httpRoute": ROUTE, "jwksService": KEYS_ONLY}


def _ingress_paths(manifests: list[Manifest]) -> list[tuple[str, str, str]]:
    return [
        (rule["host"], path["pathType"], path["path"])
        for rule in only(manifests, "Ingress")["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]


def _route_paths(manifests: list[Manifest]) -> list[dict[str, str]]:
    [rule] = only(manifests, "HTTPRoute")["spec"]["rules"]
    return [match["path"] for match in rule["matches"]]


def test_nothing_is_published_by_default(tools: Tools) -> None:
    manifests = tools.template()
    assert not {"Ingress", "HTTPRoute"} & {each["kind"] for each in manifests}
    assert {each["spec"]["type"] for each in manifests if each["kind"] == "Service"} == {"ClusterIP"}


@pytest.mark.parametrize(
    ("issuer", "paths"),
    [(None, [KEYS]), ("macp-auth-service", [KEYS]), ("https://auth.example.com", [KEYS, DISCOVERY])],
)
def test_the_keys_alone_are_published(tools: Tools, issuer: str | None, paths: list[str]) -> None:
    """On each host, exactly the paths that the service answers to verifiers."""
    manifests = tools.template(values={**BOTH, "config": {"issuer": issuer}})
    assert _ingress_paths(manifests) == [
        (host, "Exact", path) for host in ("auth.example.com", "*.example.org") for path in paths
    ]
    assert _route_paths(manifests) == [{"type": "Exact", "value": path} for path in paths]


def test_the_keys_come_from_their_own_service(tools: Tools) -> None:
    """Both lead to a port that the Service of the keys has."""
    manifests = tools.template(values={**BOTH, "service": {"port": 8080}})
    services = {each["metadata"]["name"]: each for each in manifests if each["kind"] == "Service"}
    [port] = services["macp-auth-jwks"]["spec"]["ports"]
    for rule in only(manifests, "Ingress")["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            assert path["backend"]["service"] == {"name": "macp-auth-jwks", "port": {"name": port["name"]}}
    route = only(manifests, "HTTPRoute")["spec"]
    assert route["rules"][0]["backendRefs"] == [{"name": "macp-auth-jwks", "port": 8080}]
    assert route["parentRefs"] == ROUTE["parentRefs"]


def test_controllers_get_their_part(tools: Tools) -> None:
    """Class, certificates, host names and annotations are the user's."""
    tls = [{"secretName": "auth-tls", "hosts": ["auth.example.com"]}]
    annotations = {"example.com/a": "1e3"}
    values: Values = {
        **BOTH,
        "ingress": {**INGRESS, "className": "nginx", "tls": tls, "annotations": annotations},
        "httpRoute": {**ROUTE, "hostnames": ["auth.example.com"], "annotations": annotations},
    }
    manifests = tools.template(values=values)
    ingress, route = only(manifests, "Ingress"), only(manifests, "HTTPRoute")
    assert (ingress["spec"]["ingressClassName"], ingress["spec"]["tls"]) == ("nginx", tls)
    assert route["spec"]["hostnames"] == ["auth.example.com"]
    assert ingress["metadata"]["annotations"] == route["metadata"]["annotations"] == annotations


def test_the_keys_can_have_a_port_of_their_own(tools: Tools) -> None:
    """Whatever leads to their Service follows."""
    values: Values = {**BOTH, "jwksService": {**KEYS_ONLY, "port": 443}}
    manifests = tools.template(values=values, tests=True)
    ports = {
        each["metadata"]["name"]: each["spec"]["ports"][0]["port"]
        for each in manifests
        if each["kind"] == "Service"
    }
    assert ports == {"macp-auth": 3200, "macp-auth-jwks": 443}
    assert only(manifests, "HTTPRoute")["spec"]["rules"][0]["backendRefs"][0]["port"] == 443
    args = only(manifests, "Pod")["spec"]["containers"][0]["args"]
    assert "--jwks=http://macp-auth-jwks.default.svc:443/.well-known/jwks.json" in args
    assert "http://macp-auth-jwks.default.svc:443/.well-known/jwks.json" in tools.notes(values=values)
    alone: Values = {"jwksService": {"port": 443, "enabled": False}}
    assert "http://macp-auth.default.svc:3200/.well-known/jwks.json" in tools.notes(values=alone)


def test_ingress_nginx_can_have_the_paths(tools: Tools) -> None:
    """It refuses exact paths with a dot (kubernetes/ingress-nginx#11176)."""
    manifests = tools.template(values={**BOTH, "ingress": {**INGRESS, "pathType": "ImplementationSpecific"}})
    assert {kind for _, kind, _ in _ingress_paths(manifests)} == {"ImplementationSpecific"}


def test_each_service_has_a_type_of_its_own(tools: Tools) -> None:
    """Verifiers can come from outside while callers can't."""
    values = {
        "jwksService": {
            "type": "LoadBalancer",
            "targetPort": 3201,
            "loadBalancerClass": "example.com/public",
            "loadBalancerSourceRanges": ["192.0.2.0/24", "2001:db8::/32"],
            "externalTrafficPolicy": "Local",
            "nodePort": 30001,
        }
    }
    services = {
        each["metadata"]["name"]: each["spec"]
        for each in tools.template(values=values)
        if each["kind"] == "Service"
    }
    assert services["macp-auth"]["type"] == "ClusterIP"
    jwks = services["macp-auth-jwks"]
    expected = dict(values["jwksService"])
    assert jwks["ports"][0]["nodePort"] == expected.pop("nodePort")
    assert expected.pop("targetPort") == 3201
    assert {name: jwks[name] for name in expected} == expected


def test_the_values_of_the_page_publish_the_keys(tools: Tools) -> None:
    """From the port where no token is minted, and the Gateway's pods reach it."""
    [block] = blocks(section(read("docs/kubernetes.md"), "Publish the keys"))
    manifests = tools.template(values=yaml.safe_load(block.text))
    assert [path["value"] for path in _route_paths(manifests)] == [KEYS, DISCOVERY]
    [rule] = only(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["jwks"]


NO_SERVICE = {**BOTH, "jwksService": {"enabled": False}}
REFUSED: list[tuple[Values, str]] = [
    ({**NO_SERVICE, "httpRoute": {}}, "ingress.enabled needs jwksService.enabled"),
    ({**NO_SERVICE, "ingress": {}}, "httpRoute.enabled needs jwksService.enabled"),
    ({**NO_SERVICE, "route": {"enabled": True}, "ingress": {}, "httpRoute": {}}, "route.enabled needs jwks"),
    ({"ingress": INGRESS}, "ingress.enabled needs jwksService.targetPort, for example 3201"),
    ({"httpRoute": ROUTE}, "httpRoute.enabled needs jwksService.targetPort, for example 3201"),
    ({"route": {"enabled": True}}, "route.enabled needs jwksService.targetPort, for example 3201"),
    ({"ingress": {"enabled": True}}, "ingress.enabled needs ingress.hosts"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.enabled needs httpRoute.parentRefs"),
    ({"ingress": {"hosts": ["Auth.example.com"]}}, "at '/ingress/hosts/0': 'Auth.example.com' does"),
    ({"ingress": {"paths": ["/tokens"]}}, "at '/ingress': additional properties 'paths' not allowed"),
    ({"ingress": {"pathType": "Prefix"}}, "at '/ingress/pathType': value must be one of 'Exact'"),
    (
        {"service": {"loadBalancerClass": "a"}},
        "service.loadBalancerClass is for the type LoadBalancer, and service.type is ClusterIP",
    ),
    (
        {"jwksService": {"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]}},
        "jwksService.loadBalancerSourceRanges is for the type LoadBalancer, and jwksService.type is NodePort",
    ),
    ({"jwksService": {"type": "NodePort"}}, "jwksService.type NodePort needs jwksService.targetPort"),
    ({"service": {"nodePort": 30000}}, "service.nodePort is for the types NodePort and LoadBalancer"),
    (
        {"jwksService": {"externalTrafficPolicy": "Local"}},
        "jwksService.externalTrafficPolicy is for the types NodePort and LoadBalancer",
    ),
    ({"service": {"loadBalancerSourceRanges": ["10.0.0.1"]}}, "at '/service/loadBalancerSourceRanges/0'"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_the_cluster_would_refuse_is_refused(tools: Tools, values: Values, reason: str) -> None:
    assert reason in " ".join(tools.refusal(values).split())


def test_the_notes_name_the_peer_that_is_missing(tools: Tools) -> None:
    """A controller that the NetworkPolicy keeps out publishes nothing."""
    warning = "networkPolicy.verifiers is empty"
    assert warning in tools.notes(values=BOTH)
    assert warning not in tools.notes()
    assert warning not in tools.notes(values={**BOTH, "networkPolicy": {"verifiers": [{"podSelector": {}}]}})
