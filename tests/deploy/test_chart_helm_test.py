"""`helm test`: the pod that the chart renders mints and verifies, and fails where it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509

from tests.adapters.callers import issuing
from tests.deploy.helm import Manifest, Tools, Values, only
from tests.deploy.pod import Files, Pod
from tools.support.service import BOOT_SECONDS, Service, clean_environment
from tools.support.tls import Authority
from tools.support.tls_service import TLSService, tls_settings

pytestmark = pytest.mark.slow  # a service for each case

MINT, KEYS = "macp-auth.default.svc:3200", "macp-auth-jwks.default.svc:3200"


def _policies(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == "NetworkPolicy"}


def command_of_test(
    tools: Tools,
    directory: Path,
    mint: str,
    keys: str | None = None,
    *,
    files: tuple[Path, ...] = (),
    values: Values | None = None,
    objects: dict[str, Files] | None = None,
    token: str = "",
) -> list[str]:
    """The command of the test's pod, which asks here where the Services would lead."""
    spec = only(tools.template(*files, values=values, tests=True), "Pod")["spec"]
    pod = Pod(spec, directory, objects=objects, service_account_token=token)
    urls = {f"://{MINT}": mint, f"://{KEYS}": keys or mint}
    return [_elsewhere(argument, urls) for argument in pod.command]


def _elsewhere(argument: str, urls: dict[str, str]) -> str:
    for there, here in urls.items():
        argument = re.sub(rf"^(--\w+=)https?{re.escape(there)}", rf"\1{here}", argument)
    return argument


def run_test(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=_environment(), capture_output=True, text=True, timeout=BOOT_SECONDS, check=False
    )


def _environment() -> dict[str, str]:
    """As in the image, whose Python is the one on the path that has macp-auth."""
    path = os.pathsep.join([str(Path(sys.prefix, "bin")), os.environ["PATH"]])
    return clean_environment({"PATH": path, "NO_COLOR": "1"})


def test_it_mints_and_verifies(tools: Tools, tmp_path: Path) -> None:
    """And asks for nothing: the token may do no harm, and is not in the log."""
    with Service(tmp_path) as service:
        run = run_test(command_of_test(tools, tmp_path, service.url))
        audit = service.audit_path.read_text()
    assert (run.returncode, run.stderr) == (0, "")
    assert "The token is good." in run.stdout
    assert "eyJ" not in run.stdout
    for scope in ('"can_start_sessions":false', '"is_observer":false', '"allowed_modes":[]'):
        assert scope in audit.replace(" ", "")


def test_it_expects_the_issuer_and_the_audience_of_the_values(tools: Tools, tmp_path: Path) -> None:
    """Those that the service has; with others, the token is not good."""
    config = {"issuer": "https://auth.example.com", "audience": "1e3"}
    command = command_of_test(tools, tmp_path, "http://HERE", values={"config": config})
    env = {"MACP_AUTH_ISSUER": config["issuer"], "MACP_AUTH_AUDIENCE": config["audience"]}
    with Service(tmp_path, env) as service, Service(tmp_path) as other:
        good = run_test([argument.replace("http://HERE", service.url) for argument in command])
        bad = run_test([argument.replace("http://HERE", other.url) for argument in command])
    assert good.returncode == 0, good.stderr
    assert bad.returncode == 1
    assert "The token is not good." in bad.stdout


def test_it_fails_if_nothing_is_minted(tools: Tools, tmp_path: Path) -> None:
    """A refusal is not repeated, and says why."""
    with Service(tmp_path, {"MACP_AUTH_SENDER_PATTERN": "agent://.*"}) as service:
        run = run_test(command_of_test(tools, tmp_path, service.url))
    assert run.returncode == 1
    assert "400 sender" in run.stderr


def test_it_fails_if_other_keys_are_published(tools: Tools, tmp_path: Path) -> None:
    with Service(tmp_path) as service, Service(tmp_path) as other:
        run = run_test(command_of_test(tools, tmp_path, service.url, other.url))
    assert run.returncode == 1
    assert "The token is not good." in run.stdout


def test_it_waits_until_it_is_let_in(tools: Tools, tmp_path: Path) -> None:
    """A NetworkPolicy takes effect some time after it is there."""
    with Service(tmp_path) as service:
        pass
    with subprocess.Popen(
        command_of_test(tools, tmp_path, service.url),
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as waiting:
        time.sleep(2)
        assert waiting.poll() is None
        service.start_again()
        try:
            assert waiting.wait(BOOT_SECONDS) == 0
        finally:
            service.__exit__()


def test_a_callers_file_grants_the_service_account(tools: Tools, tmp_path: Path) -> None:
    """With `tests.bearerAudience`, the pod sends its own token, also over plain http."""
    key = issuing.private("cluster-key", "RS256")
    (tmp_path / "jwks.json").write_bytes(issuing.document(key))
    file = tmp_path / "callers.toml"
    file.write_text(
        f"""
        [[issuer]]
        name = "cluster"
        issuer = "{issuing.ISSUER}"
        audience = "{issuing.AUDIENCE}"
        jwks_file = "{tmp_path / "jwks.json"}"
        [[caller]]
        name = "helm-test"
        jwt = {{ issuer = "cluster", subject = "system:serviceaccount:default:macp-auth" }}
          [[caller.grant]]
          senders = ["helm-test"]
        """
    )
    token = issuing.token(key, body=issuing.claims(sub="system:serviceaccount:default:macp-auth"))
    values = {"callers": {"existingSecret": "callers"}, "tests": {"bearerAudience": "macp-auth"}}
    with Service(tmp_path, {"MACP_AUTH_CALLERS_FILE": str(file)}) as service:
        command = command_of_test(tools, tmp_path, service.url, values=values, token=token)
        granted = run_test(command)
        without = run_test(command_of_test(tools, tmp_path, service.url))
    assert granted.returncode == 0, granted.stderr
    assert "--allow-plain-http" in command
    assert without.returncode == 1
    assert "401" in without.stderr


def test_the_kubelet_gives_it_a_token_of_that_audience(tools: Tools) -> None:
    spec = only(tools.template(values={"tests": {"bearerAudience": "1e3"}}, tests=True), "Pod")["spec"]
    [volume] = spec["volumes"]
    [source] = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "1e3"
    assert spec["serviceAccountName"] == "macp-auth"


@pytest.mark.parametrize("name", ["", "a" * 63])
def test_nothing_takes_it_for_a_pod_of_the_service(tools: Tools, name: str) -> None:
    """No selector finds it, whatever the length of the name."""
    manifests = tools.template(values={"nameOverride": name}, tests=True)
    labels = only(manifests, "Pod")["metadata"]["labels"]
    selectors = [each["spec"]["selector"] for each in manifests if each["kind"] == "Service"]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in _policies(manifests).values()]
    assert len(selectors) == 4
    assert not [each for each in selectors if each.items() <= labels.items()]
    assert len(labels["app.kubernetes.io/name"]) <= 63


@pytest.mark.parametrize(("port", "ports"), [(None, ["http"]), (3201, ["http", "jwks"])])
def test_it_is_let_in_only_while_it_runs(tools: Tools, port: int | None, ports: list[str]) -> None:
    """By a policy that Helm makes before the pod and removes after it."""
    manifests = tools.template(values={"jwksService": {"targetPort": port}}, tests=True)
    policy = _policies(manifests)["macp-auth-test"]
    labels = only(manifests, "Pod")["metadata"]["labels"]
    annotations = policy["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "test"
    assert int(annotations["helm.sh/hook-weight"]) < 0
    assert {"hook-succeeded", "hook-failed"} <= set(annotations["helm.sh/hook-delete-policy"].split(","))
    deployment = only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= deployment.items()
    [rule] = policy["spec"]["ingress"]
    [peer] = rule["from"]
    assert peer.keys() == {"podSelector"}
    assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    assert [each["port"] for each in rule["ports"]] == ports
    assert _policies(manifests)["macp-auth"]["spec"]["ingress"] == []


def test_it_can_be_left_out(tools: Tools) -> None:
    manifests = tools.template(values={"tests": {"enabled": False}}, tests=True)
    assert not [each for each in manifests if "helm.sh/hook" in each["metadata"].get("annotations", {})]


def test_with_tls_it_trusts_the_authority_that_it_is_given(tools: Tools, tmp_path: Path) -> None:
    """The file is where the values mount it."""
    authority = Authority(tmp_path)
    mounted = {
        "mintArgs": ["--cacert=/ca/ca.crt"],
        "verifyArgs": ["--cacert=/ca/ca.crt"],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
    }
    values = {"config": {"tlsCertFile": "/tls/tls.crt"}, "tests": mounted}
    objects: dict[str, Files] = {"ca": {"ca.crt": authority.path.read_text()}}
    settings = tls_settings(authority.issue("server", names=[x509.DNSName("localhost")]))
    with TLSService(tmp_path, authority.path, settings) as service:
        run = run_test(command_of_test(tools, tmp_path, service.url, values=values, objects=objects))
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ({"mintArgs": [1]}, "at '/tests/mintArgs/0': got number, want string"),
        ({"sender": ""}, "at '/tests/sender': minLength"),
    ],
)
def test_a_wrong_value_is_refused(tools: Tools, tests: Values, reason: str) -> None:
    assert reason in " ".join(tools.refusal({"tests": tests}).split())


def test_callers_may_come_through_a_proxy_in_the_pod(tools: Tools) -> None:
    """The test takes the same way."""
    values = {"service": {"targetPort": 8443}, "jwksService": {"targetPort": 3201}}
    policy = _policies(tools.template(values=values, tests=True))["macp-auth-test"]
    assert [each["port"] for each in policy["spec"]["ingress"][0]["ports"]] == [8443, "jwks"]
