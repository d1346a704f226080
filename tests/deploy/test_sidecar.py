"""deploy/sidecar/: a real Envoy with the files, between plain clients and a service with TLS and callers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml
from cryptography import x509
from msgspec import Struct

from macp_auth.adapters.callers.secret import digest_of, new_secret
from tests.deploy.helm import Tools
from tests.deploy.pod import mount
from tests.deploy.test_chart import KUBERNETES
from tests.docs.pages import ROOT, blocks, read
from tests.support.fake_server import FakeServer, Reply, Request
from tests.support.proxy import Proxy
from tools.support import callers
from tools.support.bounded import HANG_SECONDS
from tools.support.macp_runtime import MacpRuntime, verifying
from tools.support.programs import require_tool
from tools.support.proxies import envoy, envoy_program
from tools.support.service import free_port, wait_until
from tools.support.tls import Authority, Certificates, Pair
from tools.support.tls_service import TLSService, tls_settings
from tools.support.wire import Answer, exchange, request_bytes

FOLDER = ROOT / "deploy/sidecar"
MINTERS = ["mint-mtls.yaml", "mint-bearer.yaml"]
PORTS = {"jwks.yaml": 3280} | dict.fromkeys(MINTERS, 3290)
GIVES_UP_SECONDS = 5
"""The runtime, from a fetch; the minters, by the default of MACP_AUTH_SERVICE_TIMEOUT_MS."""
JWKS = "/.well-known/jwks.json"
FETCH = """
const body = JSON.stringify({sender: "first"})
fetch(process.argv[1], {method: "POST", headers: {"content-type": "application/json"}, body})
  .then(answer => answer.text()).then(console.log)
"""
_GRANTS = """
  [[caller.grant]]
  senders = ["{0}"]
  [[caller.grant]]
  senders = ["limited"]
  per_minute = 1
"""
CALLERS = f"""
[[caller]]
name = "{{0}}"
secret_sha256 = "{{1}}"
{_GRANTS}
[[caller]]
name = "{{0}}-certificate"
dns_name = "{{0}}.example.org"
{_GRANTS}"""


class Door(Struct, frozen=True):
    """An Envoy with one of the files, and the volumes that it reads."""

    port: int
    log_path: Path
    tls: Path
    token: Path

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        fields = {"host": f"127.0.0.1:{self.port}", "content-length": str(len(body)), **headers}
        raw = request_bytes(method, path, [(n.replace("_", "-"), v) for n, v in fields.items()], body)
        return exchange(self.port, raw, method=method, within=HANG_SECONDS)

    def mint(self, sender: str, path: str = "/tokens", **headers: str) -> Answer:
        """As the control plane and the playground do: with a content type, and no credential."""
        body = json.dumps({"sender": sender}).encode()
        return self.ask("POST", path, body, content_type="application/json", **headers)

    def mount_tls(self, ca: Path, client: Pair | None = None) -> None:
        files = {"ca.crt": ca.read_text()}
        if client:
            files |= {"tls.crt": client.certificate.read_text(), "tls.key": client.key.read_text()}
        mount(self.tls, files)

    def mount_token(self, token: str) -> None:
        mount(self.token, {"token": token + "\n"})


class Deployment:
    """A service, and the credentials of its callers ``first`` and ``second``, who may mint for themselves."""

    def __init__(self, directory: Path) -> None:
        for name in ("servers", "clients", "strangers"):
            (directory / name).mkdir()
        self.directory = directory
        self.servers, self.clients = Authority(directory / "servers"), Authority(directory / "clients")
        self.strangers = Authority(directory / "strangers")
        self.secrets = {name: new_secret() for name in ("first", "second")}
        text = "".join(CALLERS.format(name, digest_of(secret).hex()) for name, secret in self.secrets.items())
        env = callers.write(directory / "callers.toml", text) | {"MACP_AUTH_SIGNING_ALG": "ES256"}
        env |= {"MACP_AUTH_TLS_CLIENT_CA_FILE": str(self.clients.path)}
        pair = self.servers.issue("server")
        self.server_files = Certificates(self.servers.path, pair.certificate, pair.key)
        self.service = TLSService(directory, self.servers.path, env | tls_settings(pair))

    @contextmanager
    def door(self, file: str, backend: int | None = None, *, has_credential: bool = True) -> Iterator[Door]:
        """The door of the caller ``first`` to this port, or to the service."""
        port = free_port()
        folder = self.directory / f"door-{port}"
        door = Door(port, folder / f"envoy-{port}.log", folder / "tls", folder / "token")
        here = {
            "address: auth.example.com, port_value: 443": (
                f"address: localhost, port_value: {backend or self.service.port}"
            ),
            f"port_value: {PORTS[file]}": f"port_value: {port}",
            "/etc/envoy/macp-auth": str(folder),
            "/etc/macp-auth/tls": str(door.tls),
            "/var/run/secrets/macp-auth": str(door.token),
        }
        for each in (folder, door.tls, door.token):
            each.mkdir()
        for path in FOLDER.glob("*.yaml"):
            text = path.read_text()
            for there, to in here.items():
                text = text.replace(there, to)
            (folder / path.name).write_text(text)
        door.mount_tls(self.servers.path)
        if has_credential:
            self.rotate(door, file, "first")
        with envoy((folder / file).read_text(), folder, port):
            yield door

    def rotate(self, door: Door, file: str, caller: str) -> None:
        """Give the door the credential of this caller."""
        if file == "mint-mtls.yaml":
            names = [x509.DNSName(f"{caller}.example.org")]
            door.mount_tls(self.servers.path, self.clients.issue(caller, names=names))
        elif file == "mint-bearer.yaml":
            door.mount_token(self.secrets[caller])


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("sidecar"))
    with deployment.service:
        yield deployment


@pytest.fixture(scope="module")
def keys(deployment: Deployment) -> Iterator[Door]:
    with deployment.door("jwks.yaml") as door:
        yield door


@pytest.fixture(scope="module", params=MINTERS)
def minter(deployment: Deployment, request: pytest.FixtureRequest) -> Iterator[Door]:
    with deployment.door(request.param) as door:
        yield door


# --- the files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", PORTS)
def test_envoy_takes_the_file(file: str, tmp_path: Path) -> None:
    """As it is, but for the folder of the files that it names; nothing in it is deprecated."""
    text = (FOLDER / file).read_text()
    (tmp_path / file).write_text(text.replace("/etc/envoy/macp-auth", str(FOLDER)))
    run = subprocess.run(
        [envoy_program(), "--mode", "validate", "--config-path", tmp_path / file],
        capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "deprecated" not in run.stderr.lower()


@pytest.mark.parametrize("file", PORTS)
def test_there_is_one_listener_and_it_is_on_loopback(file: str) -> None:
    """Envoy's admin interface is not there either."""
    config = yaml.safe_load((FOLDER / file).read_text())
    addresses = [each["address"]["socket_address"] for each in config["static_resources"]["listeners"]]
    assert addresses == [{"address": "127.0.0.1", "port_value": PORTS[file]}]
    assert config.keys() == {"node", "static_resources"}


@pytest.mark.parametrize("file", PORTS)
def test_envoy_gives_up_before_its_client(file: str) -> None:
    """So the client reads an answer."""
    [seconds] = re.findall(r"^ +timeout: (\d+)s", (FOLDER / file).read_text(), re.MULTILINE)
    assert int(seconds) < GIVES_UP_SECONDS


# --- the keys -----------------------------------------------------------------------------------------


def test_the_keys_are_those_of_the_service(keys: Door, deployment: Deployment) -> None:
    """Over plain HTTP, with its cache headers."""
    answer = keys.ask("GET", JWKS)
    assert (answer.status, answer.json) == (200, deployment.service.jwks())
    assert "max-age" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/tokens"),
        ("POST", JWKS),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", f"{JWKS}/"),
        ("POST", f"{JWKS}/../../tokens"),
        ("POST", f"{JWKS}%2f..%2f..%2ftokens"),
    ],
)
def test_the_door_to_the_keys_leads_nowhere_else(keys: Door, method: str, path: str) -> None:
    """Envoy answers itself."""
    answer = keys.ask(method, path)
    assert answer.status in {400, 404}
    assert "x-request-id" not in answer.headers, "the service sends one with each answer"


@pytest.mark.parametrize("other", ["name", "authority"])
def test_no_keys_of_another_server(deployment: Deployment, other: str, tmp_path: Path) -> None:
    """Its certificate has another name, or is of another authority."""
    issuer = deployment.servers if other == "name" else deployment.strangers
    name = x509.DNSName("auth.example.net" if other == "name" else "localhost")
    server = issuer.issue("other", names=[name])
    service = TLSService(tmp_path, issuer.path, tls_settings(server))
    service.trusting.check_hostname = False
    with service, deployment.door("jwks.yaml", service.port) as door:
        assert door.ask("GET", JWKS).status == 503
        wait_until(
            lambda: "CERTIFICATE_VERIFY_FAILED" in door.log_path.read_text(),
            within=HANG_SECONDS,
            what="the log says why",
        )


def test_a_new_authority_is_followed(deployment: Deployment) -> None:
    """Without a restart of Envoy."""
    with deployment.door("jwks.yaml") as door:
        assert door.ask("GET", JWKS).status == 200
        for authority, status in ((deployment.strangers, 503), (deployment.servers, 200)):
            door.mount_tls(authority.path)
            wait_until(
                lambda s=status: door.ask("GET", JWKS).status == s, within=HANG_SECONDS, what=f"{status}"
            )


def test_keys_are_asked_for_again(deployment: Deployment) -> None:
    """After a 503, as of a replica that has no keys yet."""
    replies = [Reply(200, {"keys": []}), Reply(503, {})]
    with (
        FakeServer(lambda _: replies.pop(), deployment.server_files) as server,
        deployment.door("jwks.yaml", server.port) as door,
    ):
        assert door.ask("GET", JWKS).json == {"keys": []}


# --- minting ------------------------------------------------------------------------------------------


def test_a_client_without_a_credential_gets_a_token(minter: Door) -> None:
    """Envoy has one, and its caller's grants decide."""
    minted = minter.mint("first")
    assert (minted.status, minted.json["sender"]) == (200, "first")
    assert minter.mint("second").json == {"error": "no grant for this sender"}


def test_the_service_s_answer_passes_unchanged(minter: Door) -> None:
    """Envoy adds no header, and keeps the one that says when to ask again."""
    allowed = {"date", "content-type", "content-length", "cache-control", "x-request-id", "server"}
    assert minter.mint("first").headers.keys() <= allowed
    answers = [minter.mint("limited", x_request_id=f"request-{number}") for number in range(2)]
    assert answers[-1].status == 429
    assert int(answers[-1].headers["retry-after"]) > 0
    assert answers[-1].headers["x-request-id"] == "request-1"


def test_a_client_can_t_choose_another_credential(minter: Door, deployment: Deployment) -> None:
    """What it sends is replaced, or removed."""
    other = f"Bearer {deployment.secrets['second']}"
    assert minter.mint("second", authorization=other).status == 403
    assert minter.mint("first", authorization=other).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/tokens"),
        ("POST", "/tokens/"),
        ("POST", "//tokens"),
        ("POST", "/%74okens"),
        ("GET", JWKS),
        ("GET", "/healthz"),
    ],
)
def test_the_door_of_a_minter_leads_nowhere_else(minter: Door, method: str, path: str) -> None:
    """Envoy answers itself."""
    answer = minter.ask(method, path, content_type="application/json")
    assert answer.status == 404
    assert "x-request-id" not in answer.headers


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:3290", "127.0.0.1.example.com"])
def test_another_host_gets_nothing(minter: Door, host: str) -> None:
    """Neither a page whose name leads to loopback, nor a request for another server: no credential leaves."""
    assert minter.mint("first", host=host).status == 404
    assert minter.mint("first", path=f"http://{host}/tokens").status == 404


def test_a_browser_gets_nothing(minter: Door) -> None:
    """The service refuses it; Envoy leaves in what tells it apart."""
    assert minter.mint("first", origin="http://127.0.0.1:8000").status == 403


def test_no_credential_is_in_the_log(minter: Door, deployment: Deployment) -> None:
    """There is a line for each request, with its id."""
    minter.mint(
        "first", path="/tokens?secret=query", x_request_id="the-one", authorization="Bearer of-client"
    )

    def log() -> str:
        return minter.log_path.read_text()

    wait_until(lambda: "the-one" in log(), within=HANG_SECONDS, what="the line is written")
    assert not any(secret in log() for secret in (*deployment.secrets.values(), "query", "of-client"))


def test_an_id_of_the_client_stands_for_nothing_else_in_the_log(minter: Door) -> None:
    """It may have spaces, and comes last."""
    assert minter.mint("second", x_request_id="forged 200 POST /tokens via_upstream").status == 403

    def forged() -> list[list[str]]:
        return [line.split() for line in minter.log_path.read_text().splitlines() if "forged" in line]

    wait_until(forged, within=HANG_SECONDS, what="the line is written")
    [[_, *rest]] = forged()
    assert rest[:5] == ["403", "POST", "/tokens", "via_upstream", "forged"]


@pytest.mark.parametrize("file", MINTERS)
def test_a_new_credential_is_followed(deployment: Deployment, file: str) -> None:
    """Without a restart, as kubelet swaps a Secret or a projected token; the old one is no longer sent."""
    with deployment.door(file) as door:
        assert (door.mint("first").status, door.mint("second").status) == (200, 403)
        for now, before in (("second", "first"), ("first", "second")):
            deployment.rotate(door, file, now)
            wait_until(
                lambda n=now: door.mint(n).status == 200, within=HANG_SECONDS, what="the new one mints"
            )
            assert door.mint(before).status == 403


def test_an_empty_token_is_none(deployment: Deployment) -> None:
    """The one before is not sent."""
    with deployment.door("mint-bearer.yaml") as door:
        door.mount_token("")
        wait_until(lambda: door.mint("first").status == 401, within=HANG_SECONDS, what="it is refused")


@pytest.mark.parametrize(("file", "status"), [("mint-mtls.yaml", 503), ("mint-bearer.yaml", 401)])
def test_without_a_credential_there_is_no_token(deployment: Deployment, file: str, status: int) -> None:
    """Until it comes, also if it was not there when Envoy started."""
    with deployment.door(file, has_credential=False) as door:
        assert door.mint("first").status == status
        deployment.rotate(door, file, "first")
        wait_until(lambda: door.mint("first").status == 200, within=HANG_SECONDS, what="it mints")


@pytest.mark.parametrize("file", PORTS)
def test_a_service_that_is_away_or_hangs_is_an_answer(deployment: Deployment, file: str) -> None:
    """And the next request succeeds once it is back."""

    def status(door: Door) -> int:
        return (door.ask("GET", JWKS) if file == "jwks.yaml" else door.mint("first")).status

    with Proxy(deployment.service.port) as network, deployment.door(file, network.port) as door:
        assert status(door) == 200
        network.refuse()
        assert status(door) == 503
        network.let_pass()
        assert status(door) == 200
        network.hang()
        assert status(door) in {503, 504}
        network.let_pass()
        wait_until(lambda: status(door) == 200, within=HANG_SECONDS, what="it is back")


@pytest.mark.parametrize("file", MINTERS)
def test_a_request_that_was_sent_is_not_sent_again(deployment: Deployment, file: str) -> None:
    """The service may have minted."""
    released = threading.Event()

    def reply(_: Request) -> Reply:
        released.wait(HANG_SECONDS)
        return Reply(200, {})

    with (
        FakeServer(reply, deployment.server_files) as server,
        deployment.door(file, server.port) as door,
    ):
        assert door.mint("first").status == 504
        released.set()
        assert len(server.requests) == 1


@pytest.mark.parametrize("file", MINTERS)
def test_what_the_service_gets(deployment: Deployment, file: str) -> None:
    """Its own name and no credential but Envoy's, which does not follow a redirect."""
    with FakeServer(lambda _: Reply(200, {})) as elsewhere:
        redirect = Reply(307, b"", {"location": f"{elsewhere.url}/tokens"})
        with (
            FakeServer(lambda _: redirect, deployment.server_files) as server,
            deployment.door(file, server.port) as door,
        ):
            answer = door.mint("first", authorization="Bearer of-client")
        assert (answer.status, answer.headers["location"]) == (307, f"{elsewhere.url}/tokens")
        assert elsewhere.requests == []
    [request] = server.requests
    assert (request.json, request.headers["host"]) == ({"sender": "first"}, "localhost")
    expected = f"Bearer {deployment.secrets['first']}" if file == "mint-bearer.yaml" else None
    assert request.headers.get("authorization") == expected


# --- the real programs --------------------------------------------------------------------------------


def test_the_real_runtime_accepts_a_token_from_door_to_door(keys: Door, minter: Door, tmp_path: Path) -> None:
    """The service has only TLS, and neither the minter nor the runtime has any."""
    token = minter.mint("first").json["token"]
    with MacpRuntime(tmp_path, verifying(f"http://127.0.0.1:{keys.port}{JWKS}")) as runtime:
        assert runtime.answer_to(token) == "accepted"
        assert runtime.answer_to("wrong") == "status UNAUTHENTICATED"


def test_node_s_fetch_gets_a_token(minter: Door) -> None:
    """The client of the control plane and the playground, which adds headers of its own."""
    run = subprocess.run(
        [require_tool("node", "nodejs"), "-e", FETCH, f"http://localhost:{minter.port}/tokens"],
        capture_output=True, text=True, timeout=HANG_SECONDS, check=True,
    )  # fmt: skip
    assert json.loads(run.stdout)["sender"] == "first"


# --- the README ---------------------------------------------------------------------------------------

PAGE = read("deploy/sidecar/README.md")


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_the_pod(version: str) -> None:
    """There is no field that its API does not have."""
    kubernetes_validate.validate(_pod(), version, strict=True)


def test_the_pod_has_what_envoy_reads() -> None:
    """All files of its configuration are in volumes, and the program asks at its port."""
    [envoy_container], [program] = _pod()["spec"]["initContainers"], _pod()["spec"]["containers"]
    file = Path(envoy_container["command"][-1])
    port = PORTS[file.name]
    mounted = [each["mountPath"] for each in envoy_container["volumeMounts"]]
    named = {
        path
        for each in [file.name, *(path.name for path in FOLDER.glob("sds-*.yaml"))]
        for path in re.findall(r"(?:filename|path): (/\w[^}\s]+)", (FOLDER / each).read_text())
        if path != "/tokens"
    }
    assert len(named) > 5
    assert [path for path in {*named, str(file)} if not path.startswith(tuple(mounted))] == []
    assert program["env"] == [{"name": "MACP_AUTH_SERVICE_URL", "value": f"http://127.0.0.1:{port}"}]
    assert "volumeMounts" not in program
    assert str(port) in envoy_container["startupProbe"]["exec"]["command"][-1]


def test_the_commands_make_files_for_another_service(tools: Tools, tmp_path: Path) -> None:
    """In a ConfigMap."""
    [commands] = [block.text for block in blocks(PAGE) if block.language == "sh"]
    (tmp_path / "deploy").symlink_to(FOLDER.parent)
    made = subprocess.run(
        ["bash", "-euc", commands.rstrip() + " --dry-run=client -o yaml"],
        env={"PATH": f"{tools.kubectl.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        cwd=tmp_path, capture_output=True, text=True, timeout=HANG_SECONDS, check=True,
    )  # fmt: skip
    files: dict[str, str] = yaml.safe_load(made.stdout)["data"]
    assert files.keys() == {path.name for path in FOLDER.glob("*.yaml")}
    for name in PORTS:
        service = "macp-auth-jwks" if name == "jwks.yaml" else "macp-auth"
        assert f"address: {service}.macp.svc, port_value: 3200" in files[name]


def _pod() -> dict[str, Any]:
    [text] = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    pod: dict[str, Any] = yaml.safe_load(text)
    return pod
