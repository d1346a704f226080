"""``macp-auth mint``: a token from a real service, or one line that says why there is none."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from macp_auth.domain.presets import PRESETS
from macp_auth.entrypoints.cli.http_client import Unreachable
from macp_auth.entrypoints.cli.token_client import TokenClient
from tests.support.fake_server import FakeServer, Reply
from tools.support import callers
from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, clean_environment, free_port
from tools.support.tls import Authority, Pair, private_pem
from tools.support.tls_service import TLSService, tls_settings

COMMAND = [sys.executable, "-m", "macp_auth", "mint"]
Arguments = list[str | Path]
MODE = "macp.mode.decision.v1"
SECRET = "macp_" + "s" * 43
JWT = "eyJ.for.tests"
ANSWER = {"token": "a.b.c", "sender": "risk-agent", "expires_in_seconds": 300}
CALLERS = f"""
[[caller]]
name = "ci"
secret_sha256 = "{hashlib.sha256(SECRET.encode()).hexdigest()}"
{callers.RISK}
[[caller.grant]]
senders = ["twice"]
per_minute = 1
[[caller]]
name = "mesh"
spiffe_id = "{callers.SPIFFE_ID}"
{callers.RISK}
"""


def mint(*args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(
        [*COMMAND, *args],
        env=clean_environment(env), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    assert SECRET not in run.stdout + run.stderr
    return run


def claims(*args: str | Path, **env: str) -> dict[str, Any]:
    """The claims of the token, which is all that is printed."""
    run = mint(*args, **env)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.count("\n") == 1
    return callers.claims_of(run.stdout.removesuffix("\n"))


def refused(*args: str | Path, status: int, **env: str) -> str:
    """Why there is no token: one line, and nothing on standard output."""
    run = mint("--sender", "risk-agent", *args, **env)
    assert (run.returncode, run.stdout) == (status, ""), run.stderr
    assert run.stderr.count("\n") == 1
    return run.stderr.removeprefix("macp-auth: no token: ")


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mint")


@pytest.fixture(scope="module")
def secret(directory: Path) -> Path:
    """The file of the secret of the caller ``ci``."""
    return private(directory / "ci.secret", SECRET + "\n")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def client(authority: Authority) -> Pair:
    """The certificate of the caller ``mesh``."""
    return authority.issue("client", names=[x509.UniformResourceIdentifier(callers.SPIFFE_ID)])


@pytest.fixture(scope="module")
def closed(directory: Path, authority: Authority) -> Iterator[TLSService]:
    """A service with TLS and a callers file."""
    env = {
        **callers.write(directory / "callers.toml", CALLERS),
        **tls_settings(authority.issue("server", names=[x509.DNSName("localhost")])),
        "MACP_AUTH_TLS_CLIENT_CA_FILE": str(authority.path),
    }
    with TLSService(directory, authority.path, env) as running:
        yield running


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset(service: Service, preset: str) -> None:
    """The token has every scope, also those that an absent field would grant."""
    modes = ["--mode", MODE] if PRESETS[preset].has_modes else []
    found = claims(
        "--url", service.url, "--sender", "agent://risk", "--preset", preset, *modes, "--ttl", "60"
    )
    assert found["macp_scopes"] == PRESETS[preset].scopes_for([MODE])
    assert (found["sub"], found["exp"] - found["iat"]) == ("agent://risk", 60)


def test_scopes_as_json(service: Service) -> None:
    """They are passed on as they are; the address comes from the variable that other minters read."""
    found = claims(
        "--sender", "x", "--scopes", '{"max_open_sessions": 3}', MACP_AUTH_SERVICE_URL=f"{service.url}/"
    )
    assert found["macp_scopes"] == {"max_open_sessions": 3}


def test_the_answer_as_json(service: Service) -> None:
    """With the lifetime, which a note on standard error says was cut."""
    run = mint("--url", service.url, "--sender", "x", "--ttl", "99999", "--json")
    answer = json.loads(run.stdout)
    assert run.returncode == 0
    assert {**answer, "token": ""} == {"token": "", "sender": "x", "expires_in_seconds": 3600}
    assert run.stderr == "macp-auth: the service cut the lifetime to 3600 s\n"


def test_an_audience_that_the_service_ignores(service: Service) -> None:
    """A note names that of the token, which a verifier of the other one would refuse."""
    run = mint("--url", service.url, "--sender", "x", "--audience", "other")
    assert (run.returncode, run.stdout.count(".")) == (0, 2)
    assert run.stderr == (
        "macp-auth: the token is for 'macp-runtime': without a callers file, the service ignores --audience\n"
    )


def test_a_bearer_secret(closed: TLSService, authority: Authority, secret: Path) -> None:
    """It is read from a file, and the service is verified with the file of a private authority."""
    given: Arguments = ["--url", closed.url, "--cacert", authority.path, "--bearer-file", secret]
    assert claims(*given, "--sender", "fraud-1", "--audience", "macp-runtime")["sub"] == "fraud-1"
    assert SECRET not in closed.log + closed.audit_path.read_text()


def test_a_client_certificate(
    closed: TLSService, authority: Authority, client: Pair, directory: Path
) -> None:
    """In two files, or in one."""
    given: Arguments = ["--url", closed.url, "--cacert", authority.path, "--sender", "risk-agent"]
    assert claims(*given, "--cert", client.certificate, "--key", client.key)["sub"] == "risk-agent"
    both = private(directory / "both.pem", client.key.read_text() + client.certificate.read_text())
    assert claims(*given, "--cert", both)["sub"] == "risk-agent"


@pytest.mark.parametrize(
    ("args", "remedy"),
    [
        (["--scopes", "{"], "Invalid value for '--scopes': not JSON"),
        (["--scopes", '{"max_open_sessions": NaN}'], "Invalid value for '--scopes': not JSON"),
        (["--scopes", '{"a": 1, "a": 2}'], "Invalid value for '--scopes': not JSON"),
        (["--preset", "king"], "'king' is not one of 'initiator', 'participant', 'observer', 'registrar'"),
        (["--preset", "observer", "--scopes", '{"a": 1}'], "--scopes and --preset exclude each other"),
        (["--preset", "participant"], "--preset participant needs --mode, such as"),
        (["--preset", "registrar", "--mode", MODE], "--preset registrar sends nothing"),
        (["--mode", MODE], "--mode needs --preset"),
        (["--ttl", "0"], "Invalid value for '--ttl': 0 is not in the range x>=1"),
        (["--ttl", "1h"], "Invalid value for '--ttl': '1h' is not a valid integer"),
        (["--key", "x.key"], "--key needs --cert"),
        (["--bearer", SECRET], "No such option '--bearer'"),
    ],
)
def test_wrong_use(args: list[str], remedy: str) -> None:
    """Exit 2, before anything is sent."""
    assert remedy in refused(*args, "--url", "http://127.0.0.1:1", status=2)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--scopes", '{"isobserver": true}'], "400 scopes has an unknown field; did you mean is_observer?"),
        (["--scopes", "null"], "400 scopes must be an object"),
        (["--scopes", '{"a": 1e400}'], "400 invalid JSON body"),
        (["--sender", "a\u200bb"], "400 sender must not contain control"),
    ],
)
def test_a_request_that_the_service_refuses(service: Service, args: list[str], text: str) -> None:
    """Its own words, and the id that finds the request in its log."""
    said = refused(*args, "--url", service.url, status=1)
    assert said.startswith(text)
    assert said.split("(request ")[1].rstrip(")\n") in service.audit_path.read_text()


def test_a_url_that_has_the_path_already(service: Service) -> None:
    said = refused("--url", f"{service.url}/tokens", status=1)
    assert f"404 not found; {service.url}/tokens/tokens is not that of macp-auth; correct --url" in said


def test_callers_that_get_no_token(
    closed: TLSService, authority: Authority, secret: Path, directory: Path
) -> None:
    """401, 403 and 429, each with its remedy."""
    given: Arguments = ["--url", closed.url, "--cacert", authority.path]
    assert "401 a credential is required; pass one with --bearer-file, or" in refused(*given, status=1)
    other = private(directory / "other.secret", "macp_" + "o" * 43)
    said = refused(*given, "--bearer-file", other, status=1)
    assert said.startswith("401 the credential is not accepted; the audit log has the reason (request ")
    given += ["--bearer-file", secret]
    for args, text in (
        (["--sender", "other"], "403 no grant for this sender; see its callers file"),
        (["--scopes", '{"is_observer": true}'], "403 scopes.is_observer is more than is granted"),
    ):
        assert refused(*given, *args, status=1).startswith(text)
    mint(*given, "--sender", "twice")
    assert "429 too many requests; try again in " in refused(*given, "--sender", "twice", status=1)


def test_a_service_that_demands_a_certificate(directory: Path, authority: Authority) -> None:
    """The remedy is an option; a certificate of another authority is refused in the handshake."""
    env = tls_settings(authority.issue("server2")) | {"MACP_AUTH_TLS_CLIENT_CA_FILE": str(authority.path)}
    with TLSService(directory, authority.path, env) as service:
        given: Arguments = ["--url", service.url, "--cacert", authority.path]
        said = refused(*given, status=1)
        assert said.startswith("403 a client certificate is required; pass one with --cert and --key")
        (directory / "foreign").mkdir()
        foreign = Authority(directory / "foreign").issue("client")
        said = refused(*given, "--cert", foreign.certificate, "--key", foreign.key, status=2)
        assert "or does it not trust the client certificate?" in said


def test_a_proxy_that_demands_a_certificate(authority: Authority, directory: Path) -> None:
    """It says so in the handshake, as the service does not."""
    pair = authority.issue("proxy")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3, the client may have sent its request before
    tls.load_cert_chain(pair.certificate, pair.key)
    tls.load_verify_locations(authority.path)
    tls.verify_mode = ssl.CERT_REQUIRED

    def refuse(listener: socket.socket) -> None:
        with listener.accept()[0] as connection, suppress(OSError):
            tls.wrap_socket(connection, server_side=True)

    (directory / "unknown").mkdir()
    foreign = Authority(directory / "unknown").issue("client")
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        pool.submit(refuse, listener)
        given: Arguments = [
            "--url",
            f"https://127.0.0.1:{listener.getsockname()[1]}",
            "--cacert",
            authority.path,
        ]
        said = refused(*given, "--cert", foreign.certificate, "--key", foreign.key, status=2)
    assert "the server refuses the client certificate (TLSV1_ALERT_UNKNOWN_CA); pass another with" in said


def test_a_service_that_can_t_mint_now(start_service: Callable[..., Service]) -> None:
    """It says when to try again."""
    service = start_service({"MACP_AUTH_AUDIT_REQUIRED": "on", "MACP_AUTH_AUDIT_LOG": "/dev/full"})
    said = refused("--url", service.url, status=1)
    assert said.startswith("503 the audit log can't be written now; try again in 1 s (request ")


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://127.0.0.1:{port}", "/tokens: connection refused; start the service"),
        ("http://nowhere.invalid", "cannot resolve the host"),
        ("http://127.0.0.1:x", "the URL is malformed"),
        ("http://[::1", "the URL is malformed"),
        ("http://127.0.0.1/a b", "the URL is malformed"),
        ("http://127.0.0.1:99999", "the URL is malformed"),
        ("http://127.0.0.1:-1", "the URL is malformed"),
        ("http://127.0.0.1\n", "the URL is malformed"),
        ("http://", "the URL must name a host"),
        ("https:///tokens", "the URL must name a host"),
        ("http://127.0.0.1?", "the URL must contain no query and no fragment"),
        ("http://127.0.0.1/#a", "the URL must contain no query and no fragment"),
        ("127.0.0.1:3200", "must begin with http:// or https://"),
        (f"http://ci:{SECRET}@127.0.0.1", "must not contain a user name or a password"),
    ],
)
def test_no_service(url: str, remedy: str) -> None:
    assert remedy in refused("--url", url.format(port=free_port()), status=2)


def test_tls_faults(closed: TLSService, service: Service, authority: Authority, directory: Path) -> None:
    """The remedy is an option, or the scheme."""
    given = ["--url", closed.url]
    assert "is not trusted (" in (said := refused(*given, status=2))
    assert "pass the file of its CA with --cacert" in said
    address = closed.url.replace("localhost", "127.0.0.1")
    assert "IP address mismatch" in refused("--url", address, "--cacert", authority.path, status=2)
    assert "is it http://?" in refused("--url", service.url.replace("http", "https"), status=2)
    assert "is it https://?" in refused("--url", closed.url.replace("https", "http"), status=2)
    no_pem = private(directory / "no.pem", "no PEM")
    assert "must be a PEM file of certificates" in refused(*given, "--cacert", no_pem, status=2)


def test_files_of_a_client_certificate_that_are_unusable(
    authority: Authority, client: Pair, directory: Path
) -> None:
    """Also a key with a password, for which nobody is asked."""
    given: Arguments = ["--url", "https://localhost:1", "--cert", client.certificate]
    locked = directory / "locked.key"
    locked.touch(mode=0o600)
    locked.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), b"password"))
    loose = private(directory / "loose.key", client.key.read_text(), 0o644)
    other = authority.issue("other").key
    faults: list[tuple[Arguments, str]] = [
        (["--key", locked], "and of its key, without a password"),
        (["--key", other], "must be PEM files of a certificate and of its key"),
        ([], "client.pem contains no private key; pass its file with --key"),
        (
            ["--key", loose],
            "loose.key holds a credential, and it is accessible to group or others (mode 0644)",
        ),
        (["--key", directory / "none.key"], "none.key can't be read: No such file or directory"),
    ]
    for args, text in faults:
        assert text in refused(*given, *args, status=2)
    assert "needs https://" in refused("--url", "http://localhost:1", *given[2:], "--key", other, status=2)


def test_bearer_files_that_are_unusable(directory: Path) -> None:
    """A secret that others can read is refused, and so is what is no credential."""
    fifo = directory / "fifo"
    os.mkfifo(fifo)
    for file, text in (
        (directory / "none", "none can't be read: No such file or directory"),
        (directory, "is a directory"),
        (fifo, "is not a regular file but a named pipe"),
        (private(directory / "readable", SECRET, 0o644), "it is accessible to group or others (mode 0644)"),
        (private(directory / "writable", JWT, 0o666), "it is writable by group or others (mode 0666)"),
        (private(directory / "empty", "\n"), "must hold one bearer secret or JWT, and nothing else"),
        (private(directory / "two", f"{SECRET}\n{SECRET}"), "must hold one bearer secret or JWT"),
        (private(directory / "binary", "macp_\0\r\n"), "must hold one bearer secret or JWT"),
    ):
        assert text in refused("--url", "http://127.0.0.1:1", "--bearer-file", file, status=2)


def test_a_jwt_that_others_can_read(directory: Path) -> None:
    """Kubernetes mounts that of a service account in this way."""
    token = private(directory / "jwt", f"{JWT}\n", 0o644)
    with FakeServer(lambda _: Reply(200, ANSWER)) as server:
        run = mint("--url", server.url, "--sender", "risk-agent", "--bearer-file", token)
    assert (run.returncode, run.stdout) == (0, "a.b.c\n")
    assert server.requests[0].headers["authorization"] == f"Bearer {JWT}"


def test_a_bearer_secret_is_not_sent_in_the_clear(secret: Path) -> None:
    """Neither to a host that is not this one, nor through a proxy, which would be for loopback, too."""
    with FakeServer(lambda _: Reply(200, ANSWER)) as proxy:
        proxies = {"http_proxy": proxy.url, "HTTP_PROXY": proxy.url, "no_proxy": ""}
        said = refused("--url", "http://auth.example.com", "--bearer-file", secret, status=2, **proxies)
        port = free_port()
        refused("--url", f"http://127.0.0.1:{port}", "--bearer-file", secret, status=2, **proxies)
        refused("--url", f"http://localhost:{port}", "--bearer-file", secret, status=2, **proxies)
    assert "use https://, or forward a port of localhost to it (ssh -L, kubectl port-forward)" in said
    assert proxy.requests == []


def test_a_mesh_may_encrypt_what_is_plain_here(secret: Path) -> None:
    """The user says so."""
    with FakeServer(lambda _: Reply(200, ANSWER)) as proxy:
        allowed: Arguments = ["--bearer-file", secret, "--allow-plain-http", "--sender", "risk-agent"]
        run = mint("--url", "http://auth.example.com", *allowed, http_proxy=proxy.url, no_proxy="")
    assert (run.returncode, run.stdout) == (0, "a.b.c\n")
    assert proxy.requests[0].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(secret: Path, status: int) -> None:
    """Another host does not get the credential."""
    with FakeServer(lambda _: Reply(200, ANSWER)) as other:
        location = {"location": f"{other.url}/tokens"}
        with FakeServer(lambda _: Reply(status, b"", location)) as server:
            said = refused("--url", server.url, "--bearer-file", secret, status=1)
    assert f"redirects to {other.url}/tokens, and redirects are not followed; correct --url" in said
    assert other.requests == []


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(200, b"<html>"), "/tokens: the response is not a token; is it macp-auth?"),
        (Reply(200, {"ok": True}), "the response is not a token"),
        (Reply(200, {**ANSWER, "token": "a.b.c\n\x1b[2J"}), "the response is not a token"),
        (Reply(200, {**ANSWER, "expires_in_seconds": "300"}), "the response is not a token"),
        (Reply(200, {**ANSWER, "expires_in_seconds": -1}), "the response is not a token"),
        (Reply(200, {**ANSWER, "sender": "another"}), "the response is for another sender; is a cache"),
        (Reply(200, b"[" * 100_000), "the response is not a token"),
        (Reply(302, b"", {"location": "http://[::1"}), "redirects to http://[::1, and redirects are not"),
        (Reply(200, b"\xff"), "the response is not a token"),
        (
            Reply(502, b"<html>Bad Gateway"),
            "status 502, without an error of macp-auth; is a proxy before it?",
        ),
        (Reply(503, {"error": "busy"}, {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}), "503 busy\n"),
        (Reply(400, {"error": "a\nb\x1b[2J"}), "400 a\\nb\\x1b[2J\n"),
        (Reply(401, {"error": f"Bearer {SECRET}"}), "401 Bearer [redacted]; the audit log has the reason"),
        (Reply(400, {"error": "x" * 5000}), "x..."),
        (Reply(400, {"error": "x"}, {"x-request-id": "\x1b[2J"}), "400 x\n"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_an_answer_of_something_else(secret: Path, reply: Reply, text: str) -> None:
    """It is not printed as a token, moves no terminal, and does not repeat the credential."""
    with FakeServer(lambda _: reply) as server:
        assert text in refused("--url", server.url, "--bearer-file", secret, status=1)


def test_a_proxy_that_is_away() -> None:
    """The line names its variable, and not its password."""
    proxy = f"http://ci:{SECRET}@127.0.0.1:{free_port()}"
    said = refused("--url", "https://auth.invalid", status=2, https_proxy=proxy, no_proxy="")
    assert "connection refused" in said
    assert said.endswith(" (through the proxy of https_proxy)\n")
    assert "proxy" not in refused("--url", "http://localhost:1", status=2, http_proxy=proxy, no_proxy="")


def test_an_answer_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for, although each of its bytes is in time."""
    monkeypatch.setattr("macp_auth.entrypoints.cli.token_client._SECONDS", 1)
    stopping = threading.Event()

    def trickle(listener: socket.socket) -> None:
        with listener.accept()[0] as connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while not stopping.wait(0.1):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        pool.submit(trickle, listener)
        client = TokenClient(f"http://127.0.0.1:{listener.getsockname()[1]}")
        try:
            with pytest.raises(Unreachable, match="no response within 1 s; check the port"):
                client.mint({"sender": "x", "scopes": {}})
        finally:
            stopping.set()


def test_ctrl_c() -> None:
    """One line, and no traceback, while the service does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.settimeout(HANG_SECONDS)
        process = subprocess.Popen(
            [*COMMAND, "--url", url, "--sender", "x"],
            env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with process, listener.accept()[0] as connection:
            assert connection.recv(1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, out, err.lstrip()) == (1, "", "macp-auth: aborted\n")


def test_a_reader_that_went_away(service: Service) -> None:
    with subprocess.Popen(
        [*COMMAND, "--url", service.url, "--sender", "x"],
        env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1
