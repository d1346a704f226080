"""docs/deployment.md: real proxies, with its configurations, close what they should and open the rest."""

from __future__ import annotations

import base64
import json
import os
import pwd
import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from msgspec import Struct

from macp_auth.adapters.callers.secret import digest_of, new_secret
from macp_auth.entrypoints.server.processes import KEEP_ALIVE_SECONDS
from tests.docs.pages import Block, blocks, plain, read, rows, section
from tests.docs.terminal import Terminal, assert_as_shown, steps
from tests.support.fake_server import FakeServer, Reply
from tools.support import callers as callers_file
from tools.support.bounded import HANG_SECONDS
from tools.support.programs import require_script, require_tool
from tools.support.proxies import envoy, listening
from tools.support.service import Service, clean_environment, free_port, wait_until
from tools.support.tls import Authority, Certificates, Pair, make_certificates

PAGE = read("docs/deployment.md")
START_SECONDS = 20
NETWORK = "127.0.0.0"  # the orchestrators' network, in the place of the page's
BODY = json.dumps({"sender": "agent://risk"})


class Proxy(Struct, frozen=True):
    """A proxy that runs, and how to ask it."""

    name: str
    port: int
    ca: Path
    password: str

    def ask(
        self,
        method: str,
        path: str,
        *,
        password: str | None = None,
        bearer: str | None = None,
        certificate: Pair | None = None,
        body: str = BODY,
    ) -> tuple[int, str]:
        headers = {"content-type": "application/json"}
        if password is not None:
            pair = base64.b64encode(f"orchestrator-1:{password}".encode()).decode()
            headers["authorization"] = f"Basic {pair}"
        if bearer is not None:
            headers["authorization"] = f"Bearer {bearer}"
        trusting = ssl.create_default_context(cafile=str(self.ca))
        if certificate:
            trusting.load_cert_chain(certificate.certificate, certificate.key)
        connection = HTTPSConnection("localhost", self.port, timeout=HANG_SECONDS, context=trusting)
        try:
            connection.request(method, path, body if method == "POST" else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            return self.ask("GET", "/.well-known/jwks.json")[0] == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service"), {"MACP_AUTH_SIGNING_ALG": "ES256"}) as service:
        yield service


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """What the configurations name: a certificate, and beside it the callers' passwords."""
    return make_certificates(tmp_path_factory.mktemp("proxy"))


@pytest.fixture(scope="module")
def password(files: Certificates) -> Iterator[str]:
    """A caller's password, made by the page's commands."""
    require_tool("openssl", "openssl")
    terminal = Terminal(files.ca.parent, clean_environment())
    try:
        [commands] = [block.text for block in blocks(PAGE) if ">>callers" in block.text]
        yield terminal.run(commands + 'printf %s "$PASSWORD"\n')
    finally:
        terminal.close()


def configuration(block: Block, network: str, port: int, service: Service, folder: Path) -> str:
    """The page's, but for addresses, ports and folders."""
    text = block.text
    here = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {port}",
        "127.0.0.1:3200": f"127.0.0.1:{service.port}",
        "address: 127.0.0.1, port_value: 3200": f"address: 127.0.0.1, port_value: {service.port}",
        "/var/log/nginx": str(folder),
        "/etc/nginx/macp-auth": str(folder),
        "/etc/envoy/macp-auth": str(folder),
        "10.0.0.0": network,
        "rate=200r/s": "rate=20r/s",  # which a loaded machine can exceed too
        "tokens_per_fill: 200": "tokens_per_fill: 20",
    }
    changed = {old for old in here if old in text}
    assert len(changed) >= 5
    for old, new in here.items():
        text = text.replace(old, new)
    return text


def page_block(name: str) -> Block:
    """The configuration of a proxy."""
    [block] = blocks(section(PAGE, {"nginx": "nginx", "envoy": "Envoy"}[name]))
    return block


def start(
    name: str,
    network: str,
    service: Service,
    files: Certificates,
    password: str,
    *,
    block: Block | None = None,
) -> Iterator[Proxy]:
    """Run the page's proxy, or with ``block`` for its configuration."""
    folder, port = files.ca.parent, free_port()
    text = configuration(block or page_block(name), network, port, service, folder)
    proxy = Proxy(name, port, files.ca, password)
    log_path = folder / f"nginx-{port}.log"
    running: AbstractContextManager[object] = (
        listening(nginx(text, folder, port), log_path, port) if name == "nginx" else envoy(text, folder, port)
    )
    with running:
        wait_until(proxy.answers, within=START_SECONDS, what=f"{name} answers")
        yield proxy


def nginx(server: str, folder: Path, port: int) -> list[str]:
    """The command, for a configuration that is all in ``folder``."""
    program = require_tool("nginx", "nginx-light")
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = f"user {pwd.getpwuid(0).pw_name};" if os.getuid() == 0 else ""  # who may enter the folder
    config = folder / f"nginx-{port}.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx-{port}.pid; error_log stderr; {user}\n"
        f"events {{}}\nhttp {{\n{temporary}\n{server}\n}}\n"
    )
    return [program, "-p", str(folder), "-e", "stderr", "-c", str(config)]


@pytest.fixture(scope="module", params=["nginx", "envoy"])
def proxy(
    request: pytest.FixtureRequest, service: Service, files: Certificates, password: str
) -> Iterator[Proxy]:
    yield from start(request.param, NETWORK, service, files, password)


@pytest.fixture(params=["nginx", "envoy"])
def proxy_for_others(
    request: pytest.FixtureRequest, service: Service, files: Certificates, password: str
) -> Iterator[Proxy]:
    """Another network's proxy: as the page has it, so that this machine is not in it."""
    yield from start(request.param, "10.0.0.0", service, files, password)


@pytest.fixture(scope="module")
def callers(files: Certificates) -> Authority:
    """The authority of the callers' certificates, where the configuration expects it."""
    return Authority(files.ca.parent, "callers-ca")


@pytest.fixture
def proxy_with_certificates(
    service: Service, files: Certificates, password: str, callers: Authority
) -> Iterator[Proxy]:
    """An nginx with the page's lines about client certificates in the places that the page gives."""
    assert callers.path.exists()
    of_server, of_location = [block.text for block in blocks(section(PAGE, "Client certificates at nginx"))]
    text = page_block("nginx").text
    text, below = re.subn(r"( +ssl_protocols .*\n)", rf"\1{of_server}", text)
    text, instead = re.subn(r"( +auth_basic.*\n){2}", lambda _: of_location, text)
    assert below == instead == 1
    yield from start("nginx", NETWORK, service, files, password, block=Block("nginx", text))


def test_bearer_credentials_pass_through_nginx(files: Certificates, password: str, tmp_path: Path) -> None:
    """Without the lines that the page names, the service gets them, and decides."""
    text = page_block("nginx").text
    text, passed = re.subn(r" +proxy_set_header Authorization .*\n", "", text)
    text, opened = re.subn(r"( +auth_basic.*\n){2}", "", text)
    assert passed == opened == 1
    bearer = new_secret()
    caller = f'[[caller]]\nname = "a"\nsecret_sha256 = "{digest_of(bearer).hex()}"\n'
    grant = '[[caller.grant]]\nsenders = ["agent://risk"]\n'
    env = callers_file.write(tmp_path / "callers.toml", caller + grant)
    with Service(tmp_path, {**env, "MACP_AUTH_SIGNING_ALG": "ES256"}) as service:
        for proxy in start("nginx", NETWORK, service, files, password, block=Block("nginx", text)):
            assert proxy.ask("POST", "/tokens", bearer=bearer)[0] == 200
            refused = json.dumps({"sender": "agent://pricing"})
            assert proxy.ask("POST", "/tokens", bearer=bearer, body=refused)[0] == 403
            assert proxy.ask("POST", "/tokens")[0] == 401


def test_nginx_gets_keys_from_a_replica_that_has_them(
    service: Service, files: Certificates, password: str
) -> None:
    """One that started while its signer was away answers 503."""
    with FakeServer(lambda _: Reply(503, b"{}")) as without:
        text, added = re.subn(
            r" +server 127.0.0.1:3200( max_fails=0;).*\n",
            rf"    server 127.0.0.1:{without.port}\1\n\g<0>",
            page_block("nginx").text,
        )
        assert added == 1
        for proxy in start("nginx", NETWORK, service, files, password, block=Block("nginx", text)):
            statuses = [proxy.ask("GET", "/.well-known/jwks.json")[0] for _ in range(10)]
    assert without.requests
    assert statuses == [200] * 10


def test_nginx_mints_as_soon_as_the_replicas_can(
    service: Service, files: Certificates, password: str
) -> None:
    """An outage of the signer is one of all replicas, and each 503 counts as a failure of its replica."""
    with FakeServer(lambda _: Reply(503, {})) as one, FakeServer(lambda _: Reply(503, {})) as other:
        text, replaced = re.subn(
            r" +server 127.0.0.1:3200(.*;) # a line for each replica.*\n",
            rf"    server 127.0.0.1:{one.port}\1\n    server 127.0.0.1:{other.port}\1\n",
            page_block("nginx").text,
        )
        assert replaced == 1
        for proxy in start("nginx", NETWORK, service, files, password, block=Block("nginx", text)):
            statuses = [proxy.ask("POST", "/tokens", password=proxy.password)[0] for _ in range(3)]
            assert set(statuses) <= {502, 503}
            one.reply = other.reply = lambda _: Reply(200, {})
            wait_until(
                lambda proxy=proxy: proxy.ask("POST", "/tokens", password=proxy.password)[0] == 200,
                within=4,
                what="nginx asks the replicas again",
            )


def documented(proxy: Proxy, request: str) -> list[int]:
    """The statuses that the page's table gives."""
    column = {"nginx": 1, "envoy": 2}[proxy.name]
    [row] = [row for row in rows(section(PAGE, "What they answer")) if row[0].startswith(request)]
    return [int(status) for status in re.findall(r"\d{3}", plain(row[column]))]


def test_a_caller_with_its_password_gets_a_token(proxy: Proxy) -> None:
    """And it is the service's own answer."""
    status, text = proxy.ask("POST", "/tokens", password=proxy.password)
    assert status == 200
    assert json.loads(text)["sender"] == "agent://risk"


@pytest.mark.parametrize("wrong", [None, "", "wrong"])
def test_a_caller_without_its_password_gets_none(proxy: Proxy, wrong: str | None) -> None:
    """A name alone is not enough."""
    status, text = proxy.ask("POST", "/tokens", password=wrong)
    assert [status] == documented(proxy, "the same without a password")
    assert "token" not in text.replace("/tokens", "")


def test_a_certificate_stands_for_the_password(
    proxy_with_certificates: Proxy, callers: Authority, tmp_path: Path
) -> None:
    """Only one of the callers' authority gets a token, and the JWKS needs none."""
    ask = proxy_with_certificates.ask
    mine = callers.issue("orchestrator", "orchestrator-1")
    assert ask("POST", "/tokens", certificate=mine)[0] == 200
    assert ask("POST", "/tokens", password=proxy_with_certificates.password)[0] == 401
    stranger = Authority(tmp_path, "strangers").issue("stranger")
    assert ask("POST", "/tokens", certificate=stranger)[0] == 400
    assert ask("GET", "/.well-known/jwks.json")[0] == 200


def test_a_caller_from_another_network_gets_none(proxy_for_others: Proxy) -> None:
    """Not even with the password."""
    status, _ = proxy_for_others.ask("POST", "/tokens", password=proxy_for_others.password)
    assert [status] == documented(proxy_for_others, "the same from another network")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_jwks_is_open(proxy: Proxy, service: Service, method: str) -> None:
    """To everyone, without a password."""
    status, text = proxy.ask(method, "/.well-known/jwks.json")
    assert [status] == documented(proxy, "`GET /.well-known/jwks.json`")
    if method == "GET":
        assert json.loads(text) == service.jwks()


def test_the_jwks_is_open_to_other_networks(proxy_for_others: Proxy) -> None:
    """Verifiers need not be where orchestrators are."""
    assert proxy_for_others.answers()


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/TOKENS", "/tokens/", "/tokens/x"])
def test_other_paths_are_closed(proxy: Proxy, path: str) -> None:
    """With the statuses of the table, without and with a password."""
    with_and_without = [proxy.ask("GET", path)[0], proxy.ask("GET", path, password=proxy.password)[0]]
    expected = documented(proxy, "another path")
    assert with_and_without == (expected if len(expected) == 2 else expected * 2)


@pytest.mark.parametrize(
    "path",
    [
        "//tokens",
        "/%74okens",
        "/tokens%2f",
        "/tokens?x=1",
        "/tokens;x",
        "/./tokens",
        "/.well-known/../tokens",
        "/.well-known/jwks.json/../../tokens",
        "/.well-known/jwks.json/..%2f..%2ftokens",
        "/.well-known/jwks.json%2f..%2f..%2ftokens",
        "/.well-known/%2e%2e/tokens",
        "/.well-known/jwks.json?/tokens",
    ],
)
def test_no_spelling_of_a_path_mints_without_a_password(proxy: Proxy, path: str) -> None:
    """Neither proxy nor service takes it for something that is open."""
    status, text = proxy.ask("POST", path)
    assert status in {400, 401, 403, 404, 405}
    assert '"token"' not in text


def test_another_method_is_refused(proxy: Proxy) -> None:
    """The table says how."""
    status, _ = proxy.ask("GET", "/tokens", password=proxy.password)
    assert [status] == documented(proxy, "another method")
    assert proxy.ask("POST", "/.well-known/jwks.json")[0] in {401, 403}


def test_too_many_requests_are_refused(proxy: Proxy) -> None:
    """Even those without a password: they cost the service nothing, and soon the proxy nothing either."""
    authorization = base64.b64encode(f"orchestrator-1:{proxy.password}".encode()).decode()
    trusting = ssl.create_default_context(cafile=str(proxy.ca))
    connection = HTTPSConnection("localhost", proxy.port, timeout=HANG_SECONDS, context=trusting)
    statuses = set()
    try:
        for _ in range(5000):
            # Nothing that the service would have to sign.
            headers = {"authorization": f"Basic {authorization}", "content-type": "text/plain"}
            connection.request("POST", "/tokens", "", headers)
            answer = connection.getresponse()
            answer.read()
            statuses.add(answer.status)
            if answer.status == 429:
                break
    finally:
        connection.close()
    assert statuses >= set(documented(proxy, "too many"))


def test_the_password_stays_in_the_proxy_and_the_request_id_does_not(
    proxy: Proxy, service: Service, files: Certificates
) -> None:
    """A line of the audit log can be found in the proxy's log, with the caller's name."""

    def minted() -> list[str]:
        return [line["request_id"] for line in service.audit_lines if line["event"] == "minted"]

    def proxy_log() -> str:
        name = "macp-auth.log" if proxy.name == "nginx" else f"envoy-{proxy.port}.log"
        return (files.ca.parent / name).read_text()

    before = len(minted())
    wait_until(
        lambda: proxy.ask("POST", "/tokens", password=proxy.password)[0] == 200,
        within=HANG_SECONDS,
        what="a token, after the test of the rate limit",
    )
    wait_until(lambda: len(minted()) > before, within=HANG_SECONDS, what="the audit line is written")
    pattern = re.compile(rf"orchestrator-1 {re.escape(minted()[-1])} 200")
    wait_until(lambda: pattern.search(proxy_log()), within=HANG_SECONDS, what="the proxy's line is written")
    assert proxy.password not in proxy_log() + service.log + service.audit_path.read_text()


def test_proxies_close_idle_connections_before_the_service_does() -> None:
    """Both configurations, and the text, have numbers below the service's."""
    kept = re.findall(r"(?:keepalive_timeout|idle_timeout:) (\d+)s", PAGE)
    assert len(kept) == 3
    assert all(int(seconds) < KEEP_ALIVE_SECONDS for seconds in kept)
    assert f"keeps them for {KEEP_ALIVE_SECONDS} s" in PAGE


def test_the_checklist_s_commands_exist() -> None:
    """Each option of the doctor is one that it has; each item says why and how to check it."""
    checklist = rows(section(PAGE, "Production checklist"))
    assert len(checklist) > 10
    assert all(len(row) == 3 and all(row) for row in checklist)
    named = {option for row in checklist for option in re.findall(r"--(?:strict|issuer|audience)", row[2])}
    help_text = subprocess.run(
        [require_script("macp-auth", "macp-auth"), "doctor", "--help"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert named == {"--strict", "--issuer", "--audience"}
    assert all(option in help_text for option in named)


def test_a_listener_for_the_keys(tmp_path: Path) -> None:
    """The commands of the page, with other ports."""
    require_tool("curl", "curl")
    (serve, _), *asked = steps(section(PAGE, "A listener for the keys"))
    variable, _, shown_port = serve.split()[0].partition("=")
    port = free_port()
    terminal = Terminal(tmp_path, clean_environment())
    try:
        with Service(tmp_path, {variable: str(port)}):
            for command, shown in asked:
                assert shown
                assert_as_shown(shown, terminal.run(command.replace(f":{shown_port}", f":{port}")))
    finally:
        terminal.close()
