"""The chart renders, for each example and signer, what Kubernetes takes and strict pod security allows."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml

from tests.deploy.helm import EXAMPLES, Manifest, Tools, Values, only, pod_spec
from tests.docs.pages import blocks, read, section
from tools.generate.chart import CHART

KUBERNETES = ["1.30", "1.34", "1.37"]  # the least that Chart.yaml admits, one between, the newest known
CUSTOM = {
    "Certificate",
    "ExternalSecret",
    "HTTPRoute",
    "Route",
    "ServiceMonitor",
    "PodMonitor",
    "PrometheusRule",
}  # Kubernetes itself does not know these

SIGNERS: dict[str, Values] = {
    "ephemeral": {"type": "ephemeral", "algorithm": "ES256"},
    "env-jwk": {"type": "env-jwk", "existingSecret": "keys", "kid": "k1"},
    "jwk-file": {"type": "jwk-file", "existingSecret": "keys"},
    "vault-transit": {
        "type": "vault-transit",
        "vault": {"addr": "https://vault:8200", "namespace": "team-a", "caConfigMap": "ca"},
    },
    "plugin": {"type": "aws-kms"},
}
PROXY = {
    "name": "proxy",
    "image": "registry.example.com/proxy",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}
OPTIONS: dict[str, Values] = {
    "as they are": {},
    "nothing optional": {
        "jwksService": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "serviceAccount": {"create": False},
        "preStopSleepSeconds": 0,
        "resources": {},
    },
    "everything": {
        "imagePullSecrets": [{"name": "registry"}],
        "image": {"digest": f"sha256:{'0' * 64}"},
        "fullnameOverride": "auth",
        "config": {"workers": 2, "maxTtlSeconds": 31536000, "issuer": "https://auth.example.com"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "scratch", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108 - in a pod
        "networkPolicy": {
            "callers": [{"podSelector": {}}],
            "verifiers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "monitoring": [{"namespaceSelector": {}}],
            "egress": [{"ports": [{"port": 8200}]}],
        },
        "podDisruptionBudget": {"maxUnavailable": "25%"},
        "extraContainers": [PROXY],
        "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more"}}],
        "commonLabels": {"owner": "platform", "app.kubernetes.io/component": "another"},
        "deploymentAnnotations": {"a": "b"},
        "minReadySeconds": 5,
        "revisionHistoryLimit": 0,
        "progressDeadlineSeconds": 120,
        "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["vault"]}],
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["192.0.2.53"], "options": [{"name": "ndots", "value": "2"}]},
        "strategy": {"type": "Recreate"},
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "callers": {"existingSecret": "callers"},
        "priorityClassName": "high",
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "a", "app.kubernetes.io/name": "another"},
        "service": {
            "type": "LoadBalancer",
            "port": 80,
            "annotations": {"a": "b"},
            "loadBalancerClass": "example.com/internal",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "externalTrafficPolicy": "Local",
            "nodePort": 30080,
        },
        "jwksService": {"type": "NodePort", "nodePort": 30081, "targetPort": 3201},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"a": "b"},
            "hosts": ["auth.example.com"],
            "tls": [{"secretName": "tls", "hosts": ["auth.example.com"]}],
        },
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
        "route": {"enabled": True, "host": "auth.example.com"},
        "metrics": {
            "enabled": True,
            "serviceMonitor": {"enabled": True, "labels": {"release": "p"}},
            "prometheusRule": {"enabled": True},
            "grafanaDashboard": {"enabled": True, "annotations": {"grafana_folder": "MACP"}},
        },
    },
}
TOPOLOGIES: dict[str, tuple[tuple[Path, ...], Values]] = {
    **{example.stem: ((example,), {}) for example in EXAMPLES},
    **{
        f"{signer}, {options}": ((), {"signer": SIGNERS[signer], **OPTIONS[options]})
        for signer, options in itertools.product(SIGNERS, OPTIONS)
    },
}


@pytest.fixture(params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest) -> tuple[tuple[Path, ...], Values]:
    return TOPOLOGIES[request.param]


def test_lint(tools: Tools, topology: tuple[tuple[Path, ...], Values]) -> None:
    """`helm lint --strict` finds nothing to warn of."""
    files, values = topology
    chosen = [argument for file in files for argument in ("--values", file)]
    run = tools.run("lint", "--strict", CHART, *chosen, values=values)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    "kubernetes",
    [*(pytest.param(old, marks=pytest.mark.slow) for old in KUBERNETES[:-1]), KUBERNETES[-1]],
)
def test_kubernetes_takes_every_object(
    tools: Tools, topology: tuple[tuple[Path, ...], Values], kubernetes: str
) -> None:
    """Each object is one of the API of that version, with no field that the API does not have."""
    files, values = topology
    for manifest in tools.template(*files, values=values, kubernetes=kubernetes, tests=True):
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, kubernetes, strict=True)


def test_validation_refuses_an_unknown_field(tools: Tools) -> None:
    """The judge of the test above is one."""
    manifest = only(tools.template(), "Deployment")
    manifest["spec"]["template"]["spec"]["containers"][0]["readyProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES[0], strict=True)


def test_pods_keep_the_restricted_standard(tools: Tools, topology: tuple[tuple[Path, ...], Values]) -> None:
    """No pod breaks a rule of the Pod Security Standard "restricted"; root filesystems are read-only."""
    files, values = topology
    manifests = tools.template(*files, values=values, tests=True)
    for spec in (pod_spec(manifests), only(manifests, "Pod")["spec"]):
        assert list(_breaches(spec)) == []
        assert spec["automountServiceAccountToken"] is False
        assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in spec["containers"])


def test_a_cluster_may_choose_the_user(tools: Tools) -> None:
    """With the page's values the pod names none, and keeps the standard."""
    [block] = blocks(section(read("docs/kubernetes.md"), "OpenShift"))
    spec = pod_spec(tools.template(values=yaml.safe_load(block.text)))
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & spec["securityContext"].keys()
    assert list(_breaches(spec)) == []


def _breaches(spec: Manifest) -> list[str]:
    """The rules of https://kubernetes.io/docs/concepts/security/pod-security-standards/ that a pod breaks."""
    pod = spec.get("securityContext", {})
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"}
    kinds |= {"projected", "secret"}
    found += [f"volume {each['name']}" for each in spec.get("volumes", []) if not each.keys() & kinds]
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container.get("securityContext", {})
        context: dict[str, Any] = {**pod, **own}
        rules = {
            "privileged": not own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "drop ALL": own.get("capabilities", {}).get("drop") == ["ALL"],
            "capabilities.add": set(own.get("capabilities", {}).get("add", [])) <= {"NET_BIND_SERVICE"},
            "runAsNonRoot": context.get("runAsNonRoot") is True,
            "runAsUser": context.get("runAsUser") != 0,
            "seccompProfile": context.get("seccompProfile", {}).get("type")
            in {"RuntimeDefault", "Localhost"},
            "procMount": own.get("procMount", "Default") == "Default",
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
        }
        found += [f"{container['name']}: {rule}" for rule, kept in rules.items() if not kept]
    return found


def test_selectors_find_the_pods_whatever_labels_a_user_adds(tools: Tools) -> None:
    """Services, the budget and the policy select by labels that the pods have."""
    manifests = tools.template(values={"signer": SIGNERS["jwk-file"], **OPTIONS["everything"]})
    deployment = only(manifests, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()
    services = [each["spec"]["selector"] for each in manifests if each["kind"] == "Service"]
    selectors = [
        *services,
        deployment["selector"]["matchLabels"],
        only(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert len(services) == 3
    assert all(selector.items() <= labels for selector in selectors)


def test_nobody_is_let_in_unless_named(tools: Tools) -> None:
    """The default lets no pod reach the port, and lets nothing out."""
    policy = only(tools.template(), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == policy["egress"] == []


def test_named_peers_are_let_in_by_purpose(tools: Tools) -> None:
    """Each reaches its own port; without one for the keys, verifiers reach that of callers."""
    manifests = tools.template(values=OPTIONS["everything"])
    rules = only(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert [(rule["from"], rule["ports"][0]["port"]) for rule in rules] == [
        ([{"podSelector": {}}], "http"),
        ([{"ipBlock": {"cidr": "10.0.0.0/8"}}], "jwks"),
        ([{"namespaceSelector": {}}], "metrics"),
    ]
    shared = tools.template(values={"networkPolicy": {"verifiers": [{"podSelector": {}}]}})
    [rule] = only(shared, "NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["http"]


def test_a_signer_on_the_network_is_let_out(tools: Tools) -> None:
    """What may be reached is limited only where it is known, or was said."""
    values = {"signer": SIGNERS["vault-transit"]}
    assert only(tools.template(values=values), "NetworkPolicy")["spec"]["policyTypes"] == ["Ingress"]
    values["networkPolicy"] = {"egress": [{"ports": [{"port": 8200}]}]}
    egress = only(tools.template(values=values), "NetworkPolicy")["spec"]["egress"]
    assert [[port["port"] for port in rule["ports"]] for rule in egress] == [[53, 53], [5353, 5353], [8200]]


def test_traces_are_let_out(tools: Tools) -> None:
    """The collector can be reached, also from a signer that needs no network."""
    policy = only(tools.template(values={"config": {"traces": "otlp"}}), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize(
    "values",
    [
        {"callers": {"existingSecret": "callers"}},
        {"callers": {"existingConfigMap": "callers"}},
        {"config": {"callersFile": "/callers/callers.toml"}},
    ],
)
def test_issuers_are_let_out(tools: Tools, values: Values) -> None:
    """The keys of the issuers in a callers file can be fetched, unless egress is limited by hand."""
    policy = only(tools.template(values=values), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize("source", ["existingSecret", "existingConfigMap"])
def test_the_callers_file_is_mounted(tools: Tools, source: str) -> None:
    """As a folder, so that it follows its object; no other user of the node can read it."""
    values = {"callers": {source: "callers", "key": "file.toml"}}
    spec = pod_spec(tools.template(values=values))
    [container] = spec["containers"]
    env = {"name": "MACP_AUTH_CALLERS_FILE", "value": "/etc/macp-auth/callers/file.toml"}
    assert env in container["env"]
    [mount] = container["volumeMounts"]
    assert mount == {"name": "callers", "mountPath": "/etc/macp-auth/callers", "readOnly": True}
    [volume] = spec["volumes"]
    [kind] = volume.keys() - {"name"}
    assert volume[kind]["defaultMode"] == 0o440


def test_two_ephemeral_keys_never_serve_together(tools: Tools) -> None:
    """An update of an ephemeral service ends the old pod first, of any other the new one comes first."""
    assert only(tools.template(), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    others = only(tools.template(values={"signer": SIGNERS["jwk-file"]}), "Deployment")["spec"]["strategy"]
    assert others["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


@pytest.mark.parametrize(
    ("config", "scheme"), [({}, "HTTP"), ({"tlsCertFile": "/tls/tls.crt"}, "HTTPS")], ids=["plain", "TLS"]
)
def test_probes_ask_what_they_are_for(tools: Tools, config: Values, scheme: str) -> None:
    """Only readiness is about the signer: a restart fixes no backend. They speak what the service speaks."""
    [container] = pod_spec(tools.template(values={"config": config}))["containers"]
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: get["path"] for kind, get in asked.items()} == {
        "startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz/keys"
    }  # fmt: skip
    assert {get["port"] for get in asked.values()} == {"http"}
    assert {get["scheme"] for get in asked.values()} == {scheme}


def test_a_stop_has_time_for_what_it_does(tools: Tools) -> None:
    """A pod serves on until the cluster has learnt of its end, and then has the service's 10 s."""
    spec = pod_spec(tools.template())
    sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 0 < sleep <= spec["terminationGracePeriodSeconds"] - 10


def test_pods_spread_over_hosts_and_zones(tools: Tools) -> None:
    """Each release by itself, each version by itself, and never so that a pod can't be placed."""
    manifests = tools.template(values={"signer": SIGNERS["jwk-file"], "replicaCount": 3})
    labels = only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    spread = pod_spec(manifests)["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    for each in spread:
        assert each["labelSelector"]["matchLabels"].items() <= labels.items()
        assert each["whenUnsatisfiable"] == "ScheduleAnyway"
        assert each["matchLabelKeys"] == ["pod-template-hash"]


def test_an_eviction_takes_one_pod_at_a_time(tools: Tools) -> None:
    """And one that is not ready at any time: it holds up no drain."""
    budget = only(tools.template(), "PodDisruptionBudget")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def test_only_metrics_are_of_pods_that_are_not_ready_too(tools: Tools) -> None:
    """A pod that has not started, or never could mint, gets no requests of callers and verifiers."""
    services = {
        each["metadata"]["name"]: each["spec"].get("publishNotReadyAddresses", False)
        for each in tools.template(values={"metrics": {"enabled": True}})
        if each["kind"] == "Service"
    }
    assert services == {"macp-auth": False, "macp-auth-jwks": False, "macp-auth-metrics": True}


def test_a_pod_that_cannot_mint_can_leave_its_services(tools: Tools) -> None:
    """With the other path of the readiness probe, whose other values stay what they are."""
    [default], [other] = (
        pod_spec(tools.template(values=values))["containers"]
        for values in ({}, {"readinessProbe": {"path": "/readyz"}})
    )
    assert other["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert {**other["readinessProbe"], "httpGet": None} == {**default["readinessProbe"], "httpGet": None}


@pytest.mark.parametrize("probe", ["startup", "liveness", "readiness"])
def test_probes_can_be_delayed(tools: Tools, probe: str) -> None:
    spec = pod_spec(tools.template(values={f"{probe}Probe": {"initialDelaySeconds": 20}}))
    assert spec["containers"][0][f"{probe}Probe"]["initialDelaySeconds"] == 20


def test_verifiers_can_have_a_port_of_their_own(tools: Tools) -> None:
    """Their Service and the NetworkPolicy lead to it, and not to that of callers."""
    values = {"jwksService": {"targetPort": 3201}, "networkPolicy": {"verifiers": [{"podSelector": {}}]}}
    manifests = tools.template(values=values)
    [container] = pod_spec(manifests)["containers"]
    assert {"name": "jwks", "containerPort": 3201} in container["ports"]
    assert {"name": "MACP_AUTH_JWKS_PORT", "value": "3201"} in container["env"]
    targets = {
        each["metadata"]["name"]: [port["targetPort"] for port in each["spec"]["ports"]]
        for each in manifests
        if each["kind"] == "Service"
    }
    assert targets == {"macp-auth": ["http"], "macp-auth-jwks": ["jwks"]}
    [rule] = only(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["jwks"]


def test_metrics_have_a_port_by_name(tools: Tools) -> None:
    """Container, Service and ServiceMonitor agree on it, and the job is the one that the rules ask for."""
    manifests = tools.template(values=OPTIONS["everything"])
    container = pod_spec(manifests)["containers"][0]
    assert {"name": "metrics", "containerPort": 9464} in container["ports"]
    monitor = only(manifests, "ServiceMonitor")["spec"]
    [service] = [
        each
        for each in manifests
        if each["kind"] == "Service"
        and monitor["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
    ]
    [endpoint] = monitor["endpoints"]
    assert [endpoint["port"]] == [port["name"] for port in service["spec"]["ports"]]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "auth"}]


def test_metrics_stay_within_the_cluster(tools: Tools) -> None:
    """A Service that leads out of it has no port of the metrics."""
    manifests = tools.template(values=OPTIONS["everything"])
    ports = {
        (each["spec"]["type"], port["name"])
        for each in manifests
        if each["kind"] == "Service"
        for port in each["spec"]["ports"]
    }
    assert ports == {("LoadBalancer", "http"), ("NodePort", "http"), ("ClusterIP", "metrics")}


def test_rules_name_the_release(tools: Tools) -> None:
    """An alert of one release ignores another, and Prometheus's own templates are left alone."""
    manifests = tools.template(values=OPTIONS["everything"])
    [group] = only(manifests, "PrometheusRule")["spec"]["groups"]
    for rule in group["rules"]:
        asked = re.findall(r"(?:kube|macp_auth)_\w+(\{[^}]*\})?", rule["expr"])
        release = 'deployment="auth"' if "kube_" in rule["expr"] else 'job="auth"'
        assert all('namespace="default"' in labels and release in labels for labels in asked), rule["alert"]
    assert "RELEASE_" not in str(group)
    assert "{{ $labels.namespace }}" in str(group)


@pytest.mark.parametrize(("release", "name"), [("r" * 53, "n" * 63), ("r" * 52, "m-x"), ("r", "n" * 63)])
def test_names_fit_whatever_the_release_is_called(tools: Tools, release: str, name: str) -> None:
    """A name of a Service has 63 characters at most and no hyphen at its end; so has a label's value."""
    manifests = tools.template(release=release, values={"nameOverride": name, "metrics": {"enabled": True}})
    names = [each["metadata"]["name"] for each in manifests if each["kind"] == "Service"]
    assert len(names) == 3
    assert all(re.fullmatch("[a-z]([a-z0-9-]*[a-z0-9])?", name) and len(name) <= 63 for name in names)
    labels = [value for each in manifests for value in each["metadata"]["labels"].values()]
    assert all(re.fullmatch("[a-z0-9]([a-z0-9.-]*[a-z0-9])?", value, re.IGNORECASE) for value in labels)
    assert all(len(value) <= 63 for value in labels)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "http://macp-auth.default.svc:3200/tokens"),
        ({"config": {"tlsCertFile": "/tls/tls.crt"}}, "https://macp-auth.default.svc:3200/tokens"),
        ({"config": {"tlsCertFile": "/tls/tls.crt"}}, "https://macp-auth-jwks.default.svc:3200/.well-known"),
        (
            {"config": {"tlsCertFile": "/a", "jwksTls": "off"}, "jwksService": {"targetPort": 3201}},
            "http://macp-auth-jwks.default.svc:3200/.well-known",
        ),
        ({"signer": SIGNERS["jwk-file"]}, "There is one pod."),
        ({"networkPolicy": {"enabled": False}}, "WARNING: networkPolicy.enabled is false, and there is no"),
        ({}, "There is no callers file. Callers and verifiers reach the same port"),
        (
            {"jwksService": {"targetPort": 3201}},
            "no callers file. Each peer of networkPolicy.callers can get",
        ),
        ({"callers": {"existingSecret": "callers"}}, "The callers file decides who may mint what."),
        (
            {"callers": {"existingSecret": "callers"}, "config": {"callersMode": "report"}},
            "WARNING: config.callersMode is report.",
        ),
        ({}, "networkPolicy.callers is empty"),
    ],
)
def test_the_notes_fit_the_values(tools: Tools, values: Values, said: str) -> None:
    """What helm says after an installation is true of this one."""
    assert said in tools.notes(values=values)


def test_the_notes_of_replicas_do_not_speak_of_one_pod(tools: Tools) -> None:
    """Nor do they where the autoscaler decides, or where the key allows no more than one."""
    several: list[Values] = [{"replicaCount": 2}, {"autoscaling": {"enabled": True}}]
    for values in ({"signer": SIGNERS["jwk-file"], **more} for more in several):
        assert "There is one pod." not in tools.notes(values=values)
    assert "There is one pod." not in tools.notes()


def test_an_older_cluster_is_refused(tools: Tools) -> None:
    """The reason is the version, and not a field that the API server drops."""
    run = tools.run("template", "macp-auth", CHART, "--kube-version", "1.29")
    assert "requires kubeVersion: >=1.30" in run.stderr
