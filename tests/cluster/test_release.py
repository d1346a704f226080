"""A release as its users install it: with an example's values, awkward names, one or two address families."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.keys import signing_keys
from tests.cluster.load import MINT, Load
from tests.cluster.namespace import OUR_IMAGE, RELEASE, Namespace, Values, answers
from tests.cluster.test_examples import EXAMPLES
from tools.cluster.programs import Programs
from tools.generate.chart import CHART
from tools.support.openbao import OpenBao
from tools.support.service import wait_until

ALONE = {"development", "env-jwk", "jwk-file"}
WITH_VAULT = {"vault", "openshift"}
PEAK = """
from pathlib import Path
root = Path("/sys/fs/cgroup")
files = [root / "memory.peak", root / "memory/memory.max_usage_in_bytes"]  # version 2, or 1
print(next(file for file in files if file.exists()).read_text())
"""
SMALL: Values = {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}


@pytest.mark.parametrize(
    "example", [each for each in EXAMPLES if each.stem in ALONE], ids=lambda example: example.stem
)
def test_an_example_mints(namespace: Namespace, example: Path) -> None:
    """``helm test`` says so: its pod mints a token, and verifies it with the keys of the other Service."""
    for name in ("macp-auth-key", "macp-auth-keys"):
        namespace.create_secret(name, {"signing-keys.json": signing_keys()})
    namespace.upgrade(SMALL, files=[example])

    namespace.helm("test", RELEASE, "--logs")


@pytest.mark.parametrize(
    "example", [each for each in EXAMPLES if each.stem in WITH_VAULT], ids=lambda example: example.stem
)
def test_an_example_with_vault_mints(namespace: Namespace, vault: OpenBao, example: Path) -> None:
    """Its pods log in with their ServiceAccount, of which Vault asks the API server."""
    values = {**SMALL, "signer": {"vault": {"addr": vault.url, "caConfigMap": ""}}}
    namespace.upgrade(values, files=[example])

    namespace.helm("test", RELEASE, "--logs")


def test_a_user_that_the_cluster_assigns(namespace: Namespace) -> None:
    """OpenShift runs pods as a number from its namespace's range, in group 0."""
    namespace.create_secret("keys", {"signing-keys.json": signing_keys()})
    assigned = {"runAsUser": 1_000_680_000, "runAsGroup": 0, "fsGroup": 1_000_680_000}
    values = {
        **SMALL,
        "signer": {"type": "jwk-file", "existingSecret": "keys"},
        "podSecurityContext": assigned,
    }
    namespace.upgrade(values)

    namespace.helm("test", RELEASE, "--logs")


def test_helm_test_fails_when_nobody_can_mint(namespace: Namespace) -> None:
    namespace.upgrade({"config": {"senderPattern": "agent-.*"}})

    with pytest.raises(AssertionError, match="400"):
        namespace.helm("test", RELEASE, "--logs")


@pytest.fixture
def awkward(programs: Programs) -> Iterator[Namespace]:
    with Namespace("1e3", programs) as made:
        yield made


def test_names_that_look_like_numbers(awkward: Namespace) -> None:
    awkward.create_secret("0777", {"signing-keys.json": signing_keys()})
    values = {
        **SMALL,
        "image": OUR_IMAGE,
        "fullnameOverride": "auth",
        "signer": {"type": "jwk-file", "existingSecret": "0777"},
        "podAnnotations": {"number": "1e3"},
    }
    awkward.helm("install", "123", CHART, "--wait", "--timeout=120s", values=values)

    awkward.helm("test", "123", "--logs")


@pytest.mark.parametrize("families", [["IPv4", "IPv6"], ["IPv6"]], ids=["both", "IPv6"])
def test_each_family_of_addresses(namespace: Namespace, families: list[str]) -> None:
    policy = "RequireDualStack" if len(families) == 2 else "SingleStack"
    namespace.upgrade({"service": {"ipFamilyPolicy": policy, "ipFamilies": families}})

    for service, path in ((RELEASE, "/healthz"), (f"{RELEASE}-jwks", "/.well-known/jwks.json")):
        addresses = namespace.get("service", service)["spec"]["clusterIPs"]
        assert len(addresses) == len(families)
        for address in addresses:
            host = f"[{address}]" if ":" in address else address
            wait_until(lambda url=f"http://{host}:3200{path}": answers(url), within=60, what=host)


def test_eight_workers_fit_into_their_memory(namespace: Namespace, figures: list[str]) -> None:
    namespace.upgrade({"config": {"workers": 8}})
    with Load(namespace.address(RELEASE), "/tokens", MINT) as load:
        load.wait_for(500)
    [pod] = namespace.pods()
    [container] = pod["spec"]["containers"]
    [status] = pod["status"]["containerStatuses"]
    peak = int(namespace.kubectl("exec", pod["metadata"]["name"], "--", "python", "-Ic", PEAK))
    limit = container["resources"]["limits"]["memory"]
    figures.append(f"8 workers: {peak / 2**20:.0f} MiB at most, the limit is {limit}")

    assert status["restartCount"] == 0
    assert load.failed == {}
