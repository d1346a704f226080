"""Every outage of Vault's, produced for real: what the service answers, and how soon it is back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_server import FakeServer, Reply
from tests.support.openbao_auth import enable_approle
from tests.support.proxy import Proxy
from tests.vault.load import Load
from tools.support.openbao import OpenBao
from tools.support.service import Service, clean_environment, wait_until
from tools.support.vault_environment import POLICY, allow, with_login, with_token
from tools.support.verifiers import verify_with_pyjwt

pytestmark = pytest.mark.slow  # each takes a service, or a Vault, through a fault for seconds

DEADLINE = 2.0  # seconds: a mint, all retries included
ANSWERED = DEADLINE + 1  # with what a loaded machine adds
READINESS = 5.0  # seconds until it is seen, and until the first token after the end of the outage


def readiness(service: Service) -> str:
    """``ready``, or the reason why not."""
    try:
        _, body = service.get("/readyz")
    except urllib.error.HTTPError as error:
        with error:
            body = {"status": error.code, **json.load(error)}
    assert body in ({"ready": True}, {"status": 503, "ready": False, "reason": body.get("reason")})
    return str(body.get("reason", "ready"))


@contextmanager
def an_outage(service: Service, load: Load, reason: str, *, begin: Callable[[], object]) -> Iterator[None]:
    """Begin one, see it in readiness and in what is answered; nothing else may suffer. Then it is on."""
    wait_until(lambda: readiness(service) == "ready", within=READINESS, what="ready before")
    keys = service.jwks()
    load.wait_for(4)
    begin()
    began = time.monotonic()
    wait_until(lambda: readiness(service) == reason, within=READINESS, what=f"not ready: {reason}")
    load.wait_for(8)
    refused = [attempt for attempt in load.since(began) if attempt.status != 200]
    assert refused
    for attempt in refused:
        assert attempt.status == 503
        assert attempt.retry_after
        assert attempt.seconds < ANSWERED
    for path in ("/healthz", "/readyz/keys", "/.well-known/jwks.json"):
        asked = time.monotonic()
        assert service.get(path)[0] == 200
        assert time.monotonic() - asked < DEADLINE
    assert service.jwks() == keys
    yield
    ended = time.monotonic()
    assert load.wait_for_token(since=ended, within=READINESS) < READINESS
    wait_until(lambda: readiness(service) == "ready", within=READINESS, what="ready again")
    assert service.jwks() == keys


@pytest.fixture
def clean_run() -> Callable[..., str]:
    """Runs a command, and returns its standard output."""

    def run(env: dict[str, str], *arguments: str) -> str:
        command = [sys.executable, "-m", "macp_auth", *arguments]
        return subprocess.run(
            command, env=clean_environment(env), check=True, stdout=subprocess.PIPE, text=True, timeout=30
        ).stdout

    return run


@pytest.fixture
def shared(openbao: OpenBao, key_name: str) -> OpenBao:
    """The module's server, with a new key."""
    openbao.create_key(key_name, "ecdsa-p256")
    return openbao


def test_vault_is_stopped_and_comes_back_with_its_data(
    own_openbao: OpenBao, key_name: str, start_service: Callable[..., Service]
) -> None:
    """While it is down, and while it is sealed after its start: three causes, each named."""
    own_openbao.create_key(key_name)
    service = start_service(with_token(own_openbao, key_name))
    with Load(service) as load:
        with an_outage(service, load, "unreachable", begin=lambda: own_openbao.stop(kill=True)):
            own_openbao.start()
        with an_outage(service, load, "sealed", begin=own_openbao.seal):
            own_openbao.unseal()
    assert own_openbao.root_token not in service.log


BAD_NETWORK: dict[str, tuple[Callable[[Proxy], None], str]] = {
    "hangs": (Proxy.hang, "timeout"),
    "slow": (lambda proxy: proxy.delay(3), "timeout"),
    "refuses": (Proxy.refuse, "unreachable"),
    "trickles": (lambda proxy: proxy.trickle(0.5), "timeout"),
}


@pytest.mark.parametrize("fault", BAD_NETWORK)
def test_a_bad_network(
    shared: OpenBao, key_name: str, start_service: Callable[..., Service], fault: str
) -> None:
    """Between the service and Vault; a few tokens may still come while it begins."""
    begin, reason = BAD_NETWORK[fault]
    with Proxy(shared.port) as proxy:
        service = start_service(with_token(shared, key_name, VAULT_ADDR=proxy.url))
        with Load(service) as load, an_outage(service, load, reason, begin=lambda: begin(proxy)):
            proxy.let_pass()
            proxy.cut()


def test_broken_connections_cost_no_token(
    shared: OpenBao, key_name: str, start_service: Callable[..., Service]
) -> None:
    """A load balancer that drops idle or busy connections: what is safe is tried again."""
    with Proxy(shared.port) as proxy:
        service = start_service(with_token(shared, key_name, VAULT_ADDR=proxy.url))
        with Load(service) as load:
            for _ in range(5):
                load.wait_for(20)
                proxy.cut()
        assert load.failed == []


def test_the_permission_is_taken_away(
    shared: OpenBao, key_name: str, start_service: Callable[..., Service]
) -> None:
    """With its own reason, and without a storm of logins; with the permission the tokens come back."""
    role = enable_approle(shared, token_policies=[allow(shared, key_name)])
    env = with_login(shared, key_name, "approle", role_id=role.role_id, secret_id=role.secret_id)
    service = start_service(env)

    def take() -> None:
        shared.write_policy(f"signer-{key_name}", POLICY.format(key="another"))

    with Load(service) as load, an_outage(service, load, "permission-denied", begin=take):
        logins = service.log.count("logged in to Vault")
        assert logins <= 3
        allow(shared, key_name)


def test_the_token_is_revoked(shared: OpenBao, key_name: str, start_service: Callable[..., Service]) -> None:
    """One that we logged in for is replaced at the first refusal, and no mint fails."""
    role = enable_approle(shared, token_policies=[allow(shared, key_name)])
    env = with_login(shared, key_name, "approle", role_id=role.role_id, secret_id=role.secret_id)
    known = accessors(shared)
    service = start_service(env)
    with Load(service) as load:
        for _ in range(3):
            load.wait_for(20)
            (mine,) = accessors(shared) - known
            shared.client().auth.token.revoke_accessor(mine)
            wait_until(lambda: accessors(shared) - known, within=READINESS, what="another login")
    assert load.failed == []


def accessors(bao: OpenBao) -> set[str]:
    return set(bao.client().auth.token.list_accessors()["data"]["keys"])


def test_a_given_token_is_revoked(
    shared: OpenBao, key_name: str, start_service: Callable[..., Service]
) -> None:
    """There is nothing to log in with: not ready until there is another, and it says what to do."""
    env = with_token(shared, key_name)
    service = start_service(env)
    wait_until(lambda: readiness(service) == "ready", within=READINESS, what="ready")
    shared.revoke(env["VAULT_TOKEN"])
    wait_until(lambda: readiness(service) == "credential-refused", within=READINESS, what="not ready")
    assert "provide a new one" in service.log
    assert env["VAULT_TOKEN"] not in service.log


def test_the_key_is_deleted(shared: OpenBao, key_name: str, start_service: Callable[..., Service]) -> None:
    """It stays published for its tokens; the service never makes a key, and says which command does."""
    service = start_service(with_token(shared, key_name))
    keys = service.jwks()
    with Load(service) as load:
        load.wait_for(4)
        shared.delete_key(key_name)
        wait_until(lambda: readiness(service) == "key-missing", within=READINESS, what="not ready")
        load.wait_for(4)
        assert load.attempts[-1].status == 503
    assert service.jwks() == keys
    assert f"vault write -f transit/keys/{key_name}" in service.log
    assert key_name not in str(shared.client().list("transit/keys"))


def test_vault_is_away_at_boot(
    own_openbao: OpenBao, key_name: str, start_service: Callable[..., Service]
) -> None:
    """It starts, is alive and not ready, publishes nothing yet, and recovers by itself."""
    own_openbao.create_key(key_name)
    env = with_token(own_openbao, key_name)
    own_openbao.stop()
    service = start_service(env)
    assert readiness(service) == "unreachable"
    with pytest.raises(urllib.error.HTTPError) as refusal:
        service.jwks()
    assert refusal.value.code == 503
    assert refusal.value.headers["Retry-After"]
    refusal.value.close()
    own_openbao.start()
    wait_until(lambda: readiness(service) == "ready", within=READINESS, what="ready")
    service.mint(sender="agent://risk")


def test_a_standby_that_forwards(
    own_openbao: OpenBao, key_name: str, tmp_path: Any, start_service: Callable[..., Service]
) -> None:
    """Its address is as good as the active node's."""
    own_openbao.create_key(key_name, "ecdsa-p256")
    with OpenBao(tmp_path, standby_of=own_openbao) as standby:
        service = start_service(with_token(own_openbao, key_name, VAULT_ADDR=standby.url))
        wait_until(lambda: readiness(service) == "ready", within=READINESS, what="ready")
        service.mint(sender="agent://risk")


def test_a_redirect_is_not_followed(start_service: Callable[..., Service]) -> None:
    """A standby that does not forward sends elsewhere; a token must not go there. A fake: ours forward."""
    with FakeServer(lambda _: Reply(200, {})) as elsewhere:
        away = Reply(307, {}, {"location": f"{elsewhere.url}/v1/auth/token/lookup-self"})
        with FakeServer(lambda _: away) as standby:
            env = {"VAULT_ADDR": standby.url, "VAULT_TOKEN": "t", "MACP_AUTH_VAULT_KEY": "macp"}
            service = start_service({"MACP_AUTH_SIGNER": "vault-transit", **env})
            wait_until(lambda: readiness(service) == "standby", within=READINESS, what="not ready")
            assert elsewhere.requests == []


def test_ten_expiries_of_a_short_lived_token(
    shared: OpenBao, key_name: str, start_service: Callable[..., Service]
) -> None:
    """A token of two seconds, which can be renewed once: a login every three or so; no mint fails."""
    policies = [allow(shared, key_name), "default"]
    role = enable_approle(shared, token_policies=policies, token_ttl="2s", token_max_ttl="4s")
    env = with_login(shared, key_name, "approle", role_id=role.role_id, secret_id=role.secret_id)
    service = start_service(env)
    with Load(service, clients=8) as load:
        wait_until(lambda: service.log.count("logged in to Vault") > 10, within=60, what="ten expiries")
    assert load.failed == []
    assert len(load.attempts) > 100


def test_a_refused_secret_id_does_not_lock_its_role(
    shared: OpenBao, key_name: str, start_service: Callable[..., Service], tmp_path: Path
) -> None:
    """It is shown to Vault once; a new one in the file is tried at once."""
    role = enable_approle(shared, token_policies=[allow(shared, key_name)])
    file = tmp_path / "secret-id"
    file.write_text("00000000-0000-0000-0000-000000000000")
    env = with_login(shared, key_name, "approle", role_id=role.role_id, secret_id_file=file)
    service = start_service(env)
    attempts = "cannot read keys"
    wait_until(lambda: service.log.count(attempts) > 6, within=30, what="more attempts than lock a role")
    assert readiness(service) == "credential-refused"
    file.write_text(role.secret_id)
    wait_until(lambda: readiness(service) == "ready", within=READINESS, what="ready")


def test_another_key_of_the_same_name(
    shared: OpenBao, key_name: str, start_service: Callable[..., Service]
) -> None:
    """The published key does not verify signatures of the new one: the keys are read again at once."""
    service = start_service(with_token(shared, key_name))
    with Load(service) as load:
        load.wait_for(4)
        shared.delete_key(key_name)
        shared.create_key(key_name, "ecdsa-p256")
        made = time.monotonic()
        assert load.wait_for_token(since=made, within=READINESS) < READINESS
        wait_until(lambda: readiness(service) == "ready", within=READINESS, what="ready")
    verify_with_pyjwt(load.attempts[-1].token, service.jwks())


def test_commands_keep_their_output_clean(
    shared: OpenBao, key_name: str, clean_run: Callable[..., str]
) -> None:
    """``keys list --json`` is JSON and nothing else, though a login is logged."""
    listed = json.loads(clean_run(with_token(shared, key_name), "keys", "list", "--json"))
    assert key_name in json.dumps(listed)
