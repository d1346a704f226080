"""Nothing is lost while pods are replaced, and the keys are there when nobody can mint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.load import MINT, Load
from tests.cluster.namespace import RELEASE, Namespace, Object, Values
from tools.cluster.images import BROKEN_IMAGE, NEXT_IMAGE
from tools.support.openbao import OpenBao
from tools.support.service import wait_until

JWKS = "/.well-known/jwks.json"
_STANDS = 300  # requests, while a bad rollout or an outage stands


def values_of(vault: OpenBao, role: str = "macp-auth") -> Values:
    return {
        "replicaCount": 3,
        "signer": {"type": "vault-transit", "vault": {"addr": vault.url, "auth": {"role": role}}},
        "jwksService": {"targetPort": 3201},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "networkPolicy": {"enabled": False},
    }


@pytest.fixture
def release(namespace: Namespace, vault: OpenBao) -> Namespace:
    """Three pods that sign in Vault."""
    namespace.upgrade(values_of(vault))
    return namespace


@contextmanager
def both_loads(namespace: Namespace, title: str, figures: list[str]) -> Iterator[tuple[Load, Load]]:
    """Load on both Services; the figures say what came of it."""
    keys = Load(namespace.address(f"{RELEASE}-jwks"), JWKS)
    mints = Load(namespace.address(RELEASE), "/tokens", MINT)
    with keys, mints:
        keys.wait_for(40)
        mints.wait_for(40)
        yield keys, mints
        keys.wait_for(40)
        mints.wait_for(40)
    figures.append(
        f"{title}: keys {keys.total}, failed {keys.failed}; mints {mints.total}, failed {mints.failed}"
    )


def test_a_rollout_loses_nothing(release: Namespace, figures: list[str]) -> None:
    with both_loads(release, "rollout", figures) as (keys, mints):
        release.kubectl("set", "image", f"deployment/{RELEASE}", f"macp-auth={NEXT_IMAGE}")
        release.wait_until_rolled_out()

    assert (keys.failed, mints.failed) == ({}, {})


def test_an_eviction_loses_nothing(release: Namespace, figures: list[str]) -> None:
    with both_loads(release, "eviction", figures) as (keys, mints):
        for pod in release.pods():
            evict(release, pod["metadata"]["name"])
            release.wait_until_rolled_out()

    assert (keys.failed, mints.failed) == ({}, {})


@pytest.mark.parametrize(
    ("name", "image"),
    [("missing image", "localhost/macp-auth:does-not-exist"), ("crash loop", BROKEN_IMAGE)],
    ids=["missing image", "crash loop"],
)
def test_a_rollout_that_fails_loses_nothing(
    release: Namespace, name: str, image: str, figures: list[str]
) -> None:
    with both_loads(release, name, figures) as (keys, mints):
        release.kubectl("set", "image", f"deployment/{RELEASE}", f"macp-auth={image}")
        wait_until(lambda: has_failed(release), within=60, what="a pod that fails")
        keys.wait_for(_STANDS)
        mints.wait_for(_STANDS)
        release.kubectl("rollout", "undo", f"deployment/{RELEASE}")
        release.wait_until_rolled_out()

    assert (keys.failed, mints.failed) == ({}, {})


def test_a_rollout_to_a_configuration_that_cannot_sign_stops(
    release: Namespace, vault: OpenBao, figures: list[str]
) -> None:
    """The new pods read the keys in Vault, and are not let to sign."""
    vault.write_policy("reader", 'path "transit/keys/macp-auth" { capabilities = ["read"] }')
    role = vault.client().read("auth/kubernetes/role/macp-auth")["data"]
    vault.client().write_data("auth/kubernetes/role/reader", data={**role, "token_policies": ["reader"]})
    with both_loads(release, "rollout that can't sign", figures) as (keys, mints):
        release.upgrade(values_of(vault, "reader"), wait=False)
        wait_until(lambda: len(release.pods()) == 4, within=60, what="a new pod")
        keys.wait_for(_STANDS)
        mints.wait_for(_STANDS)
        assert sum(map(is_ready, release.pods())) == 3
        release.helm("rollback", RELEASE, "1", "--wait")
        release.wait_until_rolled_out()

    assert (keys.failed, mints.failed) == ({}, {})


def test_the_keys_are_served_while_vault_is_sealed(
    release: Namespace, vault: OpenBao, figures: list[str]
) -> None:
    with both_loads(release, "Vault sealed", figures) as (keys, mints):
        vault.seal()
        wait_until(lambda: mints.failed.get("503", 0) > 30, within=60, what="refused mints")
        keys.wait_for(_STANDS)
        restarts = [pod["status"]["containerStatuses"][0]["restartCount"] for pod in release.pods()]
        vault.unseal()
        wait_until(lambda: mints_again(mints), within=60, what="mints")

    assert keys.failed == {}
    assert set(mints.failed) == {"503"}
    assert restarts == [0, 0, 0]


def evict(namespace: Namespace, pod: str) -> None:
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace.name},
    }
    path = f"/api/v1/namespaces/{namespace.name}/pods/{pod}/eviction"
    namespace.kubectl("create", "--raw", path, "--filename", "-", text=json.dumps(eviction))


def has_failed(namespace: Namespace) -> bool:
    """Whether a container waits because it can't run."""
    states = [
        status["state"].get("waiting", {}).get("reason", "")
        for pod in namespace.pods()
        for status in pod["status"].get("containerStatuses", [])
    ]
    return any(state.startswith(("ErrImage", "ImagePull", "CrashLoop")) for state in states)


def is_ready(pod: Object) -> bool:
    conditions = pod["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def mints_again(mints: Load) -> bool:
    before = mints.answers["200"]
    mints.wait_for(20)
    return mints.answers["200"] >= before + 15
