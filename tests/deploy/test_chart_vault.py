"""Pods log in to a real OpenBao by each method, follow the Secret with the credential, and mint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from macp_auth.adapters.signers.vault_transit.settings import AuthMethod, VaultSettings, variable
from tests.deploy.helm import Tools, Values, pod_spec
from tests.deploy.pod import Files, Pod
from tests.support.openbao_auth import enable_approle, enable_cert, enable_jwt
from tools.support.bounded import HANG_SECONDS
from tools.support.openbao import OpenBao
from tools.support.service import BOOT_SECONDS, Service, wait_until
from tools.support.tls import Authority, Certificates, make_certificates
from tools.support.vault_environment import allow

pytestmark = pytest.mark.slow  # services of their own

LOGINS: dict[str, Values] = {
    "kubernetes": {"auth": {"mount": "cluster-a"}, "caConfigMap": "ca"},
    "jwt": {"auth": {"method": "jwt"}},
    "jwt of a Secret": {"auth": {"method": "jwt", "existingSecret": "login"}},
    "approle": {"auth": {"method": "approle", "roleId": "id", "existingSecret": "login"}},
    "token": {"auth": {"method": "token", "existingSecret": "login", "existingSecretKey": "token"}},
    "token of an agent": {"auth": {"method": "token", "file": "/vault/secrets/token"}},
    "cert": {"auth": {"method": "cert"}, "clientCertSecret": "client", "namespace": "team-a"},
}


def vault(more: Values, addr: str = "https://vault:8200") -> dict[str, Any]:
    return {"signer": {"type": "vault-transit", "vault": {"addr": addr, **more}}}


class Login(msgspec.Struct, frozen=True):
    """The values of a method, and what its Secret has: first, when it is wrong, and in the end."""

    values: dict[str, Any]
    first: Files
    wrong: Files
    last: Files


def _approle(bao: OpenBao, _: Authority, role: Values) -> Login:
    made = enable_approle(bao, **role)
    auth = {"method": "approle", "roleId": made.role_id, "existingSecret": "login"}
    good = {"credential": made.secret_id}
    return Login({"auth": auth}, good, {"credential": "wrong"}, good)


def _token(bao: OpenBao, _: Authority, role: Values) -> Login:
    first, last = (bao.token(role["token_policies"]) for _ in range(2))
    auth = {"method": "token", "existingSecret": "login", "existingSecretKey": "token"}
    return Login({"auth": auth}, {"token": first}, {"token": first}, {"token": last})


def _jwt(bao: OpenBao, _: Authority, role: Values) -> Login:
    made = enable_jwt(bao, bound_subject="macp-auth", **role)
    good, wrong = ({"credential": made.issuer.issue(sub=sub)} for sub in ("macp-auth", "another"))
    auth = {"method": "jwt", "role": made.role, "existingSecret": "login"}
    return Login({"auth": auth}, good, wrong, good)


def _cert(bao: OpenBao, clients: Authority, role: Values) -> Login:
    name = enable_cert(bao, clients.path, "macp-auth", **role)
    pairs = [clients.issue(common_name, common_name) for common_name in ("macp-auth", "another")]
    good, wrong = (
        {"tls.crt": pair.certificate.read_text(), "tls.key": pair.key.read_text()} for pair in pairs
    )
    values = {"auth": {"method": "cert", "role": name}, "clientCertSecret": "login"}
    return Login(values, good, wrong, good)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


@pytest.fixture
def bao(tmp_path: Path, certificates: Certificates) -> Iterator[OpenBao]:
    with OpenBao(tmp_path, certificates=certificates) as bao:
        bao.create_key("macp-auth", "ecdsa-p256")
        yield bao


@pytest.mark.parametrize(
    ("method", "volume"),
    [(_approle, "vault-credential"), (_token, "vault-credential"), (_jwt, "vault-credential"),
     (_cert, "vault-client")],
    ids=["approle", "token", "jwt", "cert"],
)  # fmt: skip
def test_a_login_follows_its_secret(
    tools: Tools,
    tmp_path: Path,
    bao: OpenBao,
    method: Callable[[OpenBao, Authority, Values], Login],
    volume: str,
) -> None:
    """With a wrong credential it can't mint any more, and with a good one it can, without a restart."""
    role = {"token_policies": [allow(bao, "macp-auth")], "token_ttl": "2s", "token_max_ttl": "2s"}
    login = method(bao, Authority(tmp_path, "clients"), role)
    assert bao.ca
    pod = Pod(
        pod_spec(tools.template(values=vault({**login.values, "caConfigMap": "ca"}, bao.url))),
        tmp_path,
        objects={"ca": {"ca.crt": bao.ca.read_text()}, "login": login.first},
    )
    with Service(tmp_path, pod.env) as service:
        wait_until(lambda: _ready(service), within=BOOT_SECONDS, what="it is ready")
        service.mint()
        pod.update(volume, login.wrong)
        if method is _token:
            bao.revoke(login.first["token"])
        wait_until(lambda: not _ready(service), within=HANG_SECONDS, what="the credential is refused")
        pod.update(volume, login.last)
        wait_until(lambda: _ready(service), within=HANG_SECONDS, what="the good credential is used")
        service.mint()


def _ready(service: Service) -> bool:
    return requests.get(f"{service.url}/readyz", timeout=HANG_SECONDS).status_code == 200


@pytest.mark.parametrize("method", ["kubernetes", "jwt"])
def test_a_pod_shows_vault_its_own_token(tools: Tools, method: str) -> None:
    """It is projected, for the audience of the values; other methods give the pod no token."""
    login = {"auth": {"method": method, "audience": "vault.example"}}
    spec = pod_spec(tools.template(values=vault(login)))
    [volume] = spec["volumes"]
    [source] = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "vault.example"
    assert _env(spec)["MACP_AUTH_VAULT_JWT_FILE"] == "/var/run/secrets/vault/token"
    for other in ("approle", "token", "cert", "jwt of a Secret"):
        assert "projected" not in json.dumps(pod_spec(tools.template(values=vault(LOGINS[other]))))


def test_a_file_of_another_program_is_not_mounted(tools: Tools) -> None:
    spec = pod_spec(tools.template(values=vault(LOGINS["token of an agent"])))
    assert _env(spec)["MACP_AUTH_VAULT_TOKEN_FILE"] == "/vault/secrets/token"
    assert "volumes" not in spec


def _env(spec: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in spec["containers"][0]["env"]}


def test_no_credential_is_in_the_environment(tools: Tools) -> None:
    """Nor are the settings of another method, of which the service would warn."""
    reads: dict[str, set[str]] = {
        "kubernetes": {"role", "jwt_file"},
        "jwt": {"role", "jwt_file"},
        "approle": {"role_id", "secret_id_file"},
        "token": {"token_file"},
        "cert": {"role", "client_cert", "client_key"},
    }
    login = {"role", "role_id", "jwt_file", "secret_id_file", "token_file", "client_cert", "client_key"}
    login |= {"token", "secret_id"}
    for method in AuthMethod:
        env = _env(pod_spec(tools.template(values=vault(LOGINS[method]))))
        assert {field for field in login if variable(field) in env} == reads[method]


def test_every_setting_can_be_set(tools: Tools) -> None:
    """By a value, or else as a variable of ``extraEnv``; the others are secrets that have a file."""
    fields = {variable(each.name) for each in msgspec.structs.fields(VaultSettings)}
    for login in LOGINS.values():
        fields -= _env(pod_spec(tools.template(values=vault({**login, "caConfigMap": "ca"})))).keys()
    free = fields - {"MACP_AUTH_VAULT_TOKEN", "MACP_AUTH_VAULT_SECRET_ID"}
    more = [{"name": name, "value": "1"} for name in sorted(free)]
    env = _env(pod_spec(tools.template(values={**vault(LOGINS["kubernetes"]), "extraEnv": more})))
    assert free <= env.keys()


REFUSED: list[tuple[Values, str]] = [
    ({"auth": {"method": "ldap"}}, "must be one of 'kubernetes', 'jwt', 'approle', 'cert', 'token'"),
    ({"authMount": "kubernetes"}, "at '/signer/vault': additional properties 'authMount' not allowed"),
    (
        {"auth": {"method": "token"}},
        "method token needs signer.vault.auth.existingSecret: the name of a Secret",
    ),
    ({"auth": {"method": "approle", "roleId": "a"}}, 'with the secret id under "credential"'),
    ({"auth": {"method": "approle", "existingSecret": "a"}}, "needs signer.vault.auth.roleId"),
    ({"auth": {"existingSecret": "a", "file": "/a"}}, "auth.file are both set; clear one of them"),
    ({"auth": {"role": ""}}, "method kubernetes needs signer.vault.auth.role"),
    ({"auth": {"method": "jwt", "role": ""}}, "method jwt needs signer.vault.auth.role"),
    ({"auth": {"method": "cert"}}, "cert needs signer.vault.clientCertSecret"),
    ({**LOGINS["cert"], "addr": "http://vault:8200"}, "cert needs an https address in signer.vault.addr"),
]


@pytest.mark.parametrize(("more", "reason"), REFUSED, ids=[json.dumps(more) for more, _ in REFUSED])
def test_half_a_login_is_refused(tools: Tools, more: Values, reason: str) -> None:
    assert reason in " ".join(tools.refusal(vault(more)).split())


def test_a_client_certificate_may_be_mounted_otherwise(tools: Tools) -> None:
    names = ["MACP_AUTH_VAULT_CLIENT_CERT", "MACP_AUTH_VAULT_CLIENT_KEY"]
    values = vault({"auth": {"method": "cert"}})
    values["extraEnv"] = [{"name": name, "value": "/spiffe/svid.pem"} for name in names]
    assert _env(pod_spec(tools.template(values=values))).keys() >= set(names)


@pytest.mark.parametrize("method", AuthMethod)
def test_the_notes_say_what_vault_needs(tools: Tools, method: AuthMethod) -> None:
    """The policy, and the method's section of the page; for the default, the role itself."""
    notes = tools.notes(values=vault(LOGINS[method]))
    assert "vault policy write macp-auth" in notes
    login = (
        "vault write auth/cluster-a/role/macp-auth" if method == "kubernetes" else f"docs/vault.md#{method}"
    )
    assert login in notes
