"""A pod with a token of its own ServiceAccount is a caller."""

from __future__ import annotations

import json

from tests.cluster.keys import signing_keys
from tests.cluster.namespace import OUR_IMAGE, Namespace, Object
from tools.support.repository import ROOT

EXAMPLE = ROOT / "deploy/helm/examples/callers.yaml"


def test_the_example_lets_one_service_account_mint_for_its_senders(namespace: Namespace) -> None:
    namespace.create_secret("macp-auth-keys", {"signing-keys.json": signing_keys()})
    namespace.create_config_map("macp-auth-callers", {"callers.toml": callers_file(namespace.name)})
    namespace.kubectl("create", "serviceaccount", "orchestrator")
    namespace.upgrade({}, files=[EXAMPLE])
    namespace.wait_for_service()

    namespace.apply(*(orchestrator(name, sender) for name, sender in (("may", "fraud-7"), ("not", "ceo"))))

    minted = namespace.wait_for_end("may")
    refused = namespace.wait_for_end("not")
    assert json.loads(minted)["sender"] == "fraud-7"
    assert "403" in refused


def test_a_token_for_another_audience_is_refused(namespace: Namespace) -> None:
    namespace.create_secret("macp-auth-keys", {"signing-keys.json": signing_keys()})
    namespace.create_config_map("macp-auth-callers", {"callers.toml": callers_file(namespace.name)})
    namespace.kubectl("create", "serviceaccount", "orchestrator")
    namespace.upgrade({}, files=[EXAMPLE])
    namespace.wait_for_service()

    namespace.apply(orchestrator("other", "fraud-7", audience="vault"))

    assert "401" in namespace.wait_for_end("other")


def callers_file(namespace: str) -> str:
    """The one in the example's comment, with the orchestrator in this namespace."""
    lines = EXAMPLE.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.strip() == "#     [[issuer]]")
    wanted = []
    for line in lines[first:]:
        if line.strip() != "#" and not line.startswith("#     "):
            break
        wanted.append(line.removeprefix("#").removeprefix("     "))
    return "\n".join(wanted).replace("system:serviceaccount:macp:", f"system:serviceaccount:{namespace}:")


def orchestrator(name: str, sender: str, audience: str = "macp-auth") -> Object:
    """A pod that mints a token with its ServiceAccount's, as the example shows it."""
    token = {"serviceAccountToken": {"audience": audience, "expirationSeconds": 600, "path": "token"}}
    mint = [
        "macp-auth",
        "mint",
        "--sender",
        sender,
        "--bearer-file=/var/run/secrets/macp-auth/token",
        "--json",
        "--allow-plain-http",
    ]
    container = {
        "name": "orchestrator",
        "image": f"{OUR_IMAGE['registry']}/{OUR_IMAGE['repository']}:{OUR_IMAGE['tag']}",
        "args": [*mint, "--url=http://macp-auth:3200"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "token", "mountPath": "/var/run/secrets/macp-auth", "readOnly": True},
        ],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": "orchestrator",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "token", "projected": {"sources": [token]}}],
        },
    }
