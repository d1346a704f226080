"""Tokens from keys in Vault: both types, every way to log in, and what the log and Vault get to see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from macp_auth.domain.errors import ConfigurationError
from macp_auth.entrypoints.plan import plan_service
from tests.support.openbao_auth import FakeKubernetes, enable_approle, enable_jwt, enable_kubernetes
from tools.support.bounded import HANG_SECONDS
from tools.support.openbao import OpenBao
from tools.support.service import Service, wait_until
from tools.support.tls import Certificates
from tools.support.vault_environment import allow, with_login, with_token
from tools.support.verifiers import verify_with_joserfc, verify_with_pyjwt

pytestmark = pytest.mark.slow  # services of their own

StartService = Callable[..., Service]


def mint_and_verify(service: Service) -> str:
    """The kid of a token that both judges accept."""
    token = service.mint(sender="agent://risk", scopes={"allowed_modes": ["x"]})["token"]
    keys = service.jwks()
    assert verify_with_pyjwt(token, keys)["sub"] == "agent://risk"
    assert verify_with_joserfc(token, keys)["sub"] == "agent://risk"
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


@pytest.mark.parametrize(
    ("key_type", "algorithm"),
    [("rsa-2048", "RS256"), ("rsa-3072", "RS256"), ("rsa-4096", "RS256"), ("ecdsa-p256", "ES256")],
)
def test_the_key_s_type_is_the_algorithm(
    openbao: OpenBao, key_name: str, start_service: StartService, key_type: str, algorithm: str
) -> None:
    """With no permission but to read the key and to sign, and with two workers."""
    openbao.create_key(key_name, key_type)
    service = start_service(with_token(openbao, key_name), "--workers", "2")
    assert mint_and_verify(service).startswith(f"{key_name}-v1-")
    [published] = service.jwks()["keys"]
    assert published["alg"] == algorithm
    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & published.keys()


def test_all_replicas_agree_without_talking(
    openbao: OpenBao, key_name: str, start_service: StartService
) -> None:
    """Two services with one key publish the same bytes, under the same kids."""
    openbao.create_key(key_name)
    openbao.rotate(key_name)
    one, other = (start_service(with_token(openbao, key_name)) for _ in range(2))
    assert one.jwks() == other.jwks()
    assert len(one.jwks()["keys"]) == 2
    assert mint_and_verify(one) == mint_and_verify(other)


def test_log_in_by_approle(openbao: OpenBao, key_name: str, start_service: StartService) -> None:
    """With a role id and a secret id; the token is given back at the end."""
    openbao.create_key(key_name, "ecdsa-p256")
    role = enable_approle(openbao, token_policies=[allow(openbao, key_name), "default"])
    env = with_login(openbao, key_name, "approle", role_id=role.role_id, secret_id=role.secret_id)
    before = len(accessors(openbao))
    service = start_service(env)
    mint_and_verify(service)
    assert len(accessors(openbao)) == before + 1
    service.__exit__()
    assert len(accessors(openbao)) == before
    assert role.secret_id not in service.log


def accessors(bao: OpenBao) -> list[str]:
    """One for every token that there is."""
    found: list[str] = bao.client().auth.token.list_accessors()["data"]["keys"]
    return found


@pytest.mark.parametrize("mount", ["jwt", "corp/jwt"])
def test_log_in_by_jwt(
    openbao: OpenBao, key_name: str, start_service: StartService, tmp_path: Path, mount: str
) -> None:
    """From a file, and under another mount."""
    openbao.create_key(key_name, "ecdsa-p256")
    role = enable_jwt(openbao, mount=mount, token_policies=[allow(openbao, key_name)])
    file = tmp_path / "jwt"
    file.write_text(role.issuer.issue())
    settings = {"role": role.role, "jwt_file": file, "auth_mount": mount}
    mint_and_verify(start_service(with_login(openbao, key_name, "jwt", **settings)))


def test_the_jwt_is_read_again_at_each_login(
    openbao: OpenBao, key_name: str, start_service: StartService, tmp_path: Path
) -> None:
    """As Kubernetes replaces a pod's token before it expires."""
    openbao.create_key(key_name, "ecdsa-p256")
    role = enable_jwt(openbao, token_policies=[allow(openbao, key_name)], token_ttl="2s", token_max_ttl="2s")
    file = tmp_path / "jwt"
    file.write_text(role.issuer.issue())
    service = start_service(with_login(openbao, key_name, "jwt", role=role.role, jwt_file=file))
    file.write_text("no JWT any more")
    wait_until(
        lambda: "credential-refused" in service.log, within=HANG_SECONDS, what="a login with the new content"
    )
    file.write_text(role.issuer.issue())
    wait_until(lambda: service.get("/readyz")[0] == 200, within=HANG_SECONDS, what="a login that is accepted")
    mint_and_verify(service)


def test_log_in_by_kubernetes(
    openbao: OpenBao,
    key_name: str,
    start_service: StartService,
    tmp_path: Path,
    certificates: Certificates,
) -> None:
    """With a pod's service account token. Only the cluster's TokenReview API is a fake."""
    openbao.create_key(key_name, "ecdsa-p256")
    with FakeKubernetes(certificates) as cluster:
        role = enable_kubernetes(openbao, cluster, token_policies=[allow(openbao, key_name)])
        file = tmp_path / "token"
        file.write_text(cluster.token())
        mint_and_verify(start_service(with_login(openbao, key_name, "kubernetes", role=role, jwt_file=file)))


def test_tls_with_an_authority_of_one_s_own(
    tmp_path: Path, certificates: Certificates, key_name: str, start_service: StartService
) -> None:
    """VAULT_CACERT makes it accepted; without, the service is not ready and says what to set."""
    with OpenBao(tmp_path, certificates=certificates) as bao:
        bao.create_key(key_name, "ecdsa-p256")
        mint_and_verify(start_service(with_token(bao, key_name, VAULT_CACERT=certificates.ca)))
        stranger = start_service(with_token(bao, key_name))
        wait_until(
            lambda: "MACP_AUTH_VAULT_CACERT" in stranger.log,
            within=HANG_SECONDS,
            what="the log says what to set",
        )


def test_vault_sees_digests_and_the_log_no_secret(
    openbao: OpenBao, key_name: str, start_service: StartService
) -> None:
    """No token, neither Vault's nor ours, is in the log; nor in the processes' command lines."""
    openbao.create_key(key_name)
    env = with_token(openbao, key_name)
    service = start_service(env)
    token = service.mint(sender="agent://risk")["token"]
    service.__exit__()
    assert env["VAULT_TOKEN"] not in service.log
    assert token.split(".")[2] not in service.log


APPROLE = {
    "MACP_AUTH_VAULT_AUTH": "approle",
    "MACP_AUTH_VAULT_ROLE_ID": "x",
    "MACP_AUTH_VAULT_SECRET_ID": "x",
}
LINE_FEED = "ends with U+000A (a line feed); remove it"
NOT_SENDABLE = "must not begin or end with white space, or contain control characters"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"VAULT_ADDR": None}, "MACP_AUTH_VAULT_ADDR (or VAULT_ADDR) must be set"),
        ({"VAULT_ADDR": "127.0.0.1:8200"}, "VAULT_ADDR must be an address such as"),
        ({"VAULT_ADDR": "https://me:secret@vault:8200"}, "VAULT_ADDR must be an address such as"),
        ({"VAULT_ADDR": ""}, "VAULT_ADDR is set but empty"),
        ({"MACP_AUTH_VAULT_KEY": None}, "MACP_AUTH_VAULT_KEY must be set"),
        ({"MACP_AUTH_VAULT_KEY": "a/b"}, "MACP_AUTH_VAULT_KEY must be the name of a transit key"),
        ({"VAULT_TOKEN": None}, "MACP_AUTH_VAULT_TOKEN or MACP_AUTH_VAULT_TOKEN_FILE must be set"),
        ({"MACP_AUTH_VAULT_AUTH": "ldap"}, "must be token, approle, kubernetes, jwt or cert"),
        ({"MACP_AUTH_VAULT_AUTH": "approle"}, "MACP_AUTH_VAULT_ROLE_ID must be set"),
        (
            {"MACP_AUTH_VAULT_AUTH": "approle", "MACP_AUTH_VAULT_ROLE_ID": "x"},
            "MACP_AUTH_VAULT_SECRET_ID or MACP_AUTH_VAULT_SECRET_ID_FILE must be set",
        ),
        ({"MACP_AUTH_VAULT_AUTH": "kubernetes"}, "MACP_AUTH_VAULT_ROLE must be set"),
        (
            {"MACP_AUTH_VAULT_AUTH": "jwt", "MACP_AUTH_VAULT_ROLE": "x"},
            "MACP_AUTH_VAULT_JWT_FILE must be set",
        ),
        ({"VAULT_ADDR": "http://127.0.0.1:99999"}, "with a port from 1 to 65535"),
        ({"VAULT_ADDR": "http://127.0.0.1:0"}, "with a port from 1 to 65535"),
        ({"VAULT_ADDR": "http://127.0.0.1:1\n"}, "VAULT_ADDR must be an address such as"),
        ({"VAULT_ADDR": "http://vault..example:1"}, "(or VAULT_ADDR) must be an address such as"),
        ({"VAULT_ADDR": "http://[::1"}, "(or VAULT_ADDR) must be an address such as"),
        ({"VAULT_ADDR": "http://:8200"}, "(or VAULT_ADDR) must be an address such as"),
        ({"VAULT_ADDR": "http://va\x01ult:1"}, "(or VAULT_ADDR) must be an address such as"),
        ({"MACP_AUTH_VAULT_KEY": "macp\n"}, f"MACP_AUTH_VAULT_KEY {LINE_FEED}"),
        ({"MACP_AUTH_VAULT_MOUNT": "transit\n"}, f"MACP_AUTH_VAULT_MOUNT {LINE_FEED}"),
        ({"VAULT_TOKEN": "hvs.secret@\n"}, f"MACP_AUTH_VAULT_TOKEN (or VAULT_TOKEN) {NOT_SENDABLE}"),
        ({"VAULT_TOKEN": "hvs.\x00secret@"}, f"MACP_AUTH_VAULT_TOKEN (or VAULT_TOKEN) {NOT_SENDABLE}"),
        ({"VAULT_TOKEN": " hvs.secret@"}, f"MACP_AUTH_VAULT_TOKEN (or VAULT_TOKEN) {NOT_SENDABLE}"),
        ({"VAULT_NAMESPACE": "a\r\n"}, f"MACP_AUTH_VAULT_NAMESPACE (or VAULT_NAMESPACE) {NOT_SENDABLE}"),
        ({**APPROLE, "MACP_AUTH_VAULT_ROLE_ID": "x\n"}, f"MACP_AUTH_VAULT_ROLE_ID {LINE_FEED}"),
        ({**APPROLE, "MACP_AUTH_VAULT_SECRET_ID": "secret@\n"}, f"MACP_AUTH_VAULT_SECRET_ID {LINE_FEED}"),
        (
            {"MACP_AUTH_VAULT_AUTH": "kubernetes", "MACP_AUTH_VAULT_ROLE": "x\n"},
            f"MACP_AUTH_VAULT_ROLE {LINE_FEED}",
        ),
        (
            {"MACP_AUTH_VAULT_TOKEN_FILE": "secret@"},
            "MACP_AUTH_VAULT_TOKEN (or VAULT_TOKEN) and MACP_AUTH_VAULT_TOKEN_FILE are both set",
        ),
        (
            {**APPROLE, "MACP_AUTH_VAULT_SECRET_ID_FILE": "secret@"},
            "MACP_AUTH_VAULT_SECRET_ID and MACP_AUTH_VAULT_SECRET_ID_FILE are both set",
        ),
        ({"VAULT_CACERT": "/nowhere.pem"}, "MACP_AUTH_VAULT_CACERT (or VAULT_CACERT) can't be read: No such"),
        ({"VAULT_CACERT": "/etc"}, "MACP_AUTH_VAULT_CACERT (or VAULT_CACERT) can't be read: Is a directory"),
        (
            {"MACP_AUTH_VAULT_CACERT": __file__},
            "MACP_AUTH_VAULT_CACERT (or VAULT_CACERT) must be the path of a PEM file of certificates",
        ),
        ({"MACP_AUTH_VAULT_TIMEOUT_MS": "3000"}, "whole number of milliseconds from 50 to 2000"),
    ],
)
def test_settings_that_can_t_work(change: dict[str, str | None], message: str) -> None:
    """The start is refused, and the variable named, without its content; no server is asked."""
    env = {
        "MACP_AUTH_SIGNER": "vault-transit",
        "MACP_AUTH_VAULT_KEY": "macp",
        "VAULT_ADDR": "http://127.0.0.1:1",
        "VAULT_TOKEN": "t",
    }
    merged = {name: value for name, value in {**env, **change}.items() if value is not None}
    with pytest.raises(ConfigurationError) as refusal:
        plan_service(merged)
    assert message in str(refusal.value)
    assert "secret@" not in str(refusal.value)


def test_a_token_that_the_method_does_not_use_stops_nothing() -> None:
    """It may be an administrator's, left in the shell."""
    env = {"MACP_AUTH_SIGNER": "vault-transit", "MACP_AUTH_VAULT_KEY": "macp", "VAULT_ADDR": "http://[::1]:1"}
    plan_service({**env, **APPROLE, "VAULT_TOKEN": "t\n"})
