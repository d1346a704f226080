"""One request: credentials, TLS, and each answer that may come."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import math
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from macp_auth_client import (
    CredentialError,
    MintError,
    MintRefused,
    MintUnavailable,
    TokenSource,
    UntrustedService,
)
from macp_auth_client.minting import _retry_after
from tests.client.support import ES256, SCOPES, SENDER, Source, outcome
from tests.support.fake_server import FakeServer, Reply
from tools.support import callers
from tools.support.callers import claims_of
from tools.support.programs import require_tool
from tools.support.service import Service, wait_until
from tools.support.tls import Authority, Certificates, private_pem
from tools.support.tls_service import TLSService, tls_settings

SECRETS = {name: f"macp_{name}{'x' * 42}" for name in ("a", "b")}
_FOR_LOOPBACK = "-addext subjectAltName=IP:127.0.0.1"
ANSWER = {"token": "a.b.c", "sender": SENDER, "expires_in_seconds": 300}
MakeSource = Callable[..., Source]
GRANTS = f"""
  [[caller.grant]]
  senders = ["{SENDER}"]
  scopes = {{ allowed_modes = ["macp.mode.decision.v1", ""] }}

  [[caller.grant]]
  senders = ["powerless"]

"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("minting")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def service(directory: Path, authority: Authority) -> Iterator[TLSService]:
    """TLS, and callers with a secret or a certificate."""
    digests = {name: hashlib.sha256(secret.encode()).hexdigest() for name, secret in SECRETS.items()}
    secrets = [
        f'[[caller]]\nname = "secret-{name}"\nsecret_sha256 = "{digest}"\n'
        for name, digest in digests.items()
    ]
    names = [f'[[caller]]\nname = "cert-{name}"\ndns_name = "{name}.example"\n' for name in ("a", "b")]
    text = "".join(caller + GRANTS for caller in [*secrets, *names])
    env = {
        **ES256,
        **tls_settings(authority.issue("server")),
        "MACP_AUTH_TLS_CLIENT_CA_FILE": str(authority.path),
        **callers.write(directory / "callers.toml", text),
    }
    with TLSService(directory, authority.path, env) as running:
        yield running


@pytest.fixture
def bearer(tmp_path: Path) -> Path:
    path = tmp_path / "bearer"
    path.write_text(SECRETS["a"] + "\n")
    return path


def _callers(service: Service) -> list[str]:
    return [line["caller"] for line in service.audit_lines if line.get("sender") == SENDER]


def _mint_again(source: Source) -> str:
    source.invalidate(source.token())
    return source.token()


def _wait_for_callers(service: Service, *expected: str, skip: int) -> None:
    wait_until(
        lambda: _callers(service)[skip:] == list(expected), within=20, what=f"{expected} in the audit log"
    )


def test_a_bearer_file_is_read_for_each_request(
    make_source: MakeSource, service: TLSService, authority: Authority, bearer: Path
) -> None:
    """As Kubernetes replaces a projected token: a new file behind a link."""
    seen = len(_callers(service))
    source = make_source(service.url, bearer_file=bearer, cacert=authority.path)
    first = source.token()
    other = bearer.with_name("other")
    other.write_text(SECRETS["b"])
    link = bearer.with_name("link")
    link.symlink_to(other)
    link.replace(bearer)
    assert _mint_again(source) != first
    _wait_for_callers(service, "secret-a", "secret-b", skip=seen)


def test_a_renewed_client_certificate_is_used(
    make_source: MakeSource, service: TLSService, authority: Authority
) -> None:
    """Without a restart, and also if the files do not fit each other for a moment."""
    seen = len(_callers(service))
    pair = authority.issue("client", names=[x509.DNSName("a.example")])
    source = make_source(service.url, cert=pair.certificate, key=pair.key, cacert=authority.path)
    source.token()
    pair.replace(authority.issue("renewed", names=[x509.DNSName("b.example")]))
    _mint_again(source)
    _wait_for_callers(service, "cert-a", "cert-b", skip=seen)


def test_a_certificate_and_its_key_in_one_file(service: TLSService, authority: Authority) -> None:
    """As some tools write them."""
    pair = authority.issue("one", names=[x509.DNSName("a.example")])
    pair.certificate.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    source = TokenSource(service.url, SENDER, SCOPES, cert=pair.certificate, cacert=authority.path)
    assert claims_of(source.token())["sub"] == SENDER


def test_a_renewed_authority_is_used(
    make_source: MakeSource, service: TLSService, authority: Authority, bearer: Path, tmp_path: Path
) -> None:
    """While the file has another authority, the service is not believed, and the token stays."""
    cacert = tmp_path / "authorities.pem"
    cacert.write_bytes(Authority(tmp_path, "other").path.read_bytes())
    source = make_source(service.url, bearer_file=bearer, cacert=cacert, max_wait=1)
    with pytest.raises(UntrustedService, match="is not trusted: "):
        source.token()
    cacert.write_bytes(authority.path.read_bytes())
    wait_until(lambda: _has_token(source), within=20, what="a token")


def _failure_of(source: Source) -> MintError:
    """Why it has no token, once that is known."""
    while isinstance(got := outcome(source.token), MintError):
        if "within" not in str(got):
            return got
    raise AssertionError("it has a token")


def _has_token(source: Source) -> bool:
    return isinstance(outcome(source.token), str)


def test_the_name_in_the_certificate_must_be_that_of_the_url(authority: Authority, bearer: Path) -> None:
    """The credential is not sent to another server of the same authority."""
    pair = authority.issue("elsewhere", names=[x509.DNSName("elsewhere.example")])
    other = Certificates(authority.path, pair.certificate, pair.key)
    with FakeServer(lambda _: Reply(200, {}), other) as server:
        source = TokenSource(server.url, SENDER, SCOPES, bearer_file=bearer, cacert=authority.path)
        with pytest.raises(UntrustedService, match="is not trusted: IP address mismatch"):
            source.token()
        assert server.requests == []


def test_the_authorities_of_httpx_do_not_vouch_for_a_private_one(service: TLSService, bearer: Path) -> None:
    """Without cacert. It is said at once: time alone does not change it."""
    source = TokenSource(service.url, SENDER, SCOPES, bearer_file=bearer, max_wait=math.inf)
    with pytest.raises(UntrustedService, match="is not trusted: ") as caught:
        source.token()
    assert not caught.value.retryable


def test_an_authority_that_python_3_13_would_not_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its default demands a key usage, which curl does not, and many private authorities lack."""
    require_tool("openssl", "openssl")
    new = "openssl req -x509 -nodes -newkey rsa:2048 -subj /CN={0} -out {0}.pem -keyout {0}.key"
    for command in (new.format("ca"), f"{new.format('a')} -CA ca.pem -CAkey ca.key {_FOR_LOOPBACK}"):
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    certificates = Certificates(*(tmp_path / name for name in ("ca.pem", "a.pem", "a.key")))
    lenient = ssl.create_default_context

    def strict(**options: Any) -> ssl.SSLContext:
        context = lenient(**options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    with FakeServer(lambda _: Reply(200, ANSWER), certificates) as server:
        assert TokenSource(server.url, SENDER, SCOPES, cacert=certificates.ca).token() == "a.b.c"


@pytest.mark.parametrize(
    ("sender", "secret", "status", "text"),
    [
        (SENDER, None, 401, "a credential is required"),
        (SENDER, "macp_wrong", 401, "the credential is not accepted"),
        ("other", SECRETS["a"], 403, "no grant for this sender"),
        ("powerless", SECRETS["a"], 403, "scopes.allowed_modes is more than is granted for this sender"),
    ],
)
def test_refusals_have_the_service_s_text_and_no_secret(
    *,
    service: TLSService,
    authority: Authority,
    bearer: Path,
    caplog: pytest.LogCaptureFixture,
    sender: str,
    secret: str | None,
    status: int,
    text: str,
) -> None:
    """In the error and in the log; both have the request's id."""
    caplog.set_level(logging.DEBUG)
    bearer.write_text(secret or "")
    source = TokenSource(
        service.url, sender, SCOPES, bearer_file=bearer if secret else None, cacert=authority.path
    )
    with pytest.raises(MintRefused) as caught:
        source.token()
    assert (caught.value.status, caught.value.retryable) == (status, False)
    assert f"{service.url}/tokens answered {status}: {text} (request " in str(caught.value)
    assert text in caplog.text
    if secret:
        assert secret not in caplog.text + str(caught.value) + repr(caught.value)


def test_the_request_has_what_was_asked_for(bearer: Path) -> None:
    """As the service would read it."""
    with FakeServer(lambda _: Reply(200, ANSWER)) as server:
        source = TokenSource(
            server.url + "/auth/", SENDER, SCOPES, ttl_seconds=600, audience="other", bearer_file=bearer
        )
        assert source.token() == "a.b.c"
        (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/auth/tokens")
    assert request.json == {"sender": SENDER, "scopes": SCOPES, "ttl_seconds": 600, "audience": "other"}
    assert request.headers["authorization"] == f"Bearer {SECRETS['a']}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (Reply(302, {}, {"location": "http://127.0.0.1:1/tokens"}), MintRefused, "answered 302: Found"),
        (Reply(200, b"<html>welcome</html>"), MintUnavailable, "does not answer as macp-auth does"),
        (Reply(200, {"token": "a.b.c"}), MintUnavailable, "does not answer as macp-auth does"),
        (Reply(200, {**ANSWER, "token": "a.b.c\r\nx"}), MintUnavailable, "does not answer as"),
        (Reply(200, {**ANSWER, "expires_in_seconds": 0}), MintUnavailable, "does not answer as"),
        (Reply(200, {**ANSWER, "expires_in_seconds": "9"}), MintUnavailable, "does not answer as"),
        (Reply(200, {**ANSWER, "sender": "another"}), MintUnavailable, "answers for another sender"),
        (Reply(200, b" " * (2**20 + 1)), MintUnavailable, "answers with more than 1048576 bytes"),
        (
            Reply(
                200, gzip.compress(b" " * 2**25 + json.dumps(ANSWER).encode()), {"content-encoding": "gzip"}
            ),
            MintUnavailable,
            "does not answer as macp-auth does",
        ),
        (Reply(200, b"[" * 100_000), MintUnavailable, "does not answer as macp-auth does"),
        (Reply(502, b"<html>bad gateway</html>"), MintUnavailable, "answered 502: Bad Gateway"),
        (Reply(429, {"error": "too many requests"}), MintUnavailable, "answered 429: too many requests"),
        (Reply(408, {"error": "the request did not arrive in time"}), MintUnavailable, "answered 408"),
        (Reply(404, {"error": "not found\x1b[2J\n"}), MintRefused, "answered 404: not found[2J"),
    ],
)
def test_answers_of_something_else(
    make_source: MakeSource, reply: Reply, kind: type[MintError], text: str
) -> None:
    """A proxy, a captive portal, a maintenance page: no page of theirs is in the text."""
    with FakeServer(lambda _: reply) as server:
        error = _failure_of(make_source(server.url, max_wait=1))
    assert type(error) is kind
    assert text in str(error)
    assert "<html>" not in str(error)
    assert str(error).isprintable()


def test_a_wait_that_is_longer_than_max_wait_fails_at_once() -> None:
    """With the time that the service asks for, for a caller who wants to wait."""
    reply = Reply(429, {"error": "too many requests"}, {"retry-after": "40"})
    with FakeServer(lambda _: reply) as server:
        source = TokenSource(server.url, SENDER, SCOPES, max_wait=30)
        for _ in range(5):
            with pytest.raises(MintUnavailable) as caught:
                source.token()
            assert (caught.value.status, caught.value.retry_after) == (429, 40)
        assert len(server.requests) == 1, "nothing is asked before that time"


@pytest.mark.parametrize(
    ("retry_after", "date", "expected"),
    [
        ("7", None, 7),
        (" 7 ", None, 7),
        (formatdate(1_000_030, usegmt=True), formatdate(1_000_000, usegmt=True), 30),
        (formatdate(1_000_000, usegmt=True), formatdate(1_000_030, usegmt=True), 0),
        ("-1", None, None),
        ("1.5", None, None),
        ("soon", None, None),
        ("", None, None),
        ("9" * 30, None, None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None, None),
    ],
)
def test_retry_after(retry_after: str, date: str | None, expected: float | None) -> None:
    """Seconds, or a date by the clock of the answer, whatever the clock of this machine says."""
    headers = {"retry-after": retry_after, **({"date": date} if date else {})}
    assert _retry_after(httpx.Response(503, headers=headers)) == expected


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_retry_after_with_a_date_and_without_that_of_the_answer(date: str | None) -> None:
    """Then this machine's clock is all there is."""
    until = formatdate(time.time() + 30, usegmt=True)
    headers = {"retry-after": until, **({"date": date} if date else {})}
    found = _retry_after(httpx.Response(503, headers=headers))
    assert found is not None
    assert 20 < found <= 30


def test_a_proxy_of_the_environment_is_not_used(
    monkeypatch: pytest.MonkeyPatch, service: TLSService, authority: Authority, bearer: Path
) -> None:
    """It would see a credential that goes to loopback over plain http."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    source = TokenSource(service.url, SENDER, SCOPES, bearer_file=bearer, cacert=authority.path)
    assert claims_of(source.token())["sub"] == SENDER


@pytest.mark.parametrize(
    "url", ["http://auth.example", "http://10.0.0.1:3200", "http://[2001:db8::1]", "http://localhost.example"]
)
def test_a_bearer_does_not_go_to_another_host_without_tls(url: str, bearer: Path) -> None:
    """Unless it is said that something else encrypts; without a credential there is none to lose."""
    with pytest.raises(ValueError, match="refusing to send a credential to .* over plain http: use https"):
        TokenSource(url, SENDER, SCOPES, bearer_file=bearer)
    TokenSource(url, SENDER, SCOPES, bearer_file=bearer, allow_plain_http=True)
    TokenSource(url, SENDER, SCOPES)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://127.9.9.9", "http://[::1]:1", "http://LOCALHOST"]
)
def test_a_bearer_may_go_to_loopback(url: str, bearer: Path) -> None:
    """In plain text."""
    TokenSource(url, SENDER, SCOPES, bearer_file=bearer)


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("auth.example", {}, "url must begin with"),
        ("ftp://auth.example", {}, "url must begin with"),
        ("https://", {}, "url must begin with"),
        ("https://auth.example:port", {}, "url is malformed"),
        ("https://user:hunter2@auth.example", {}, "no user, password, query or fragment"),
        ("https://auth.example?a=b", {}, "no user, password, query or fragment"),
        ("https://auth.example?", {}, "no user, password, query or fragment"),
        ("https://auth.example/#", {}, "no user, password, query or fragment"),
        ("https://auth.example:65536", {}, "malformed host or port"),
        ("https://auth.example:0", {}, "malformed host or port"),
        ("https://auth..example", {}, "malformed host or port"),
        (f"https://{'a' * 64}.example", {}, "malformed host or port"),
        *(("https://a", {name: ""}, "path of a file is empty") for name in ("bearer_file", "cert", "cacert")),
        *(("https://a", {"timeout": bad}, "timeout must be") for bad in (0, -1, math.inf, math.nan)),
        *(("https://a", {"max_wait": bad}, "max_wait must be") for bad in (-1, math.nan)),
        ("http://auth.example", {"cert": "a", "key": "b"}, "a client certificate needs an https url"),
        ("https://auth.example", {"key": "b"}, "key is set without cert"),
        ("https://auth.example", {"ttl_seconds": float("nan")}, "not JSON compliant"),
    ],
)
def test_arguments_that_cannot_work(url: str, options: dict[str, Any], text: str) -> None:
    """Are refused when the source is made, and show no password."""
    with pytest.raises(ValueError, match=text) as caught:
        TokenSource(url, SENDER, SCOPES, **options)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"a b", b"a\nb", b"\xff", b"x" * 17_000, b"a\x00b"])
def test_a_file_that_has_no_bearer(tmp_path: Path, content: bytes) -> None:
    """The error names the file, and nothing of what is in it."""
    path = tmp_path / "bearer"
    path.write_bytes(content)
    error = _failure_of(TokenSource("https://auth.example", SENDER, SCOPES, bearer_file=path, max_wait=1))
    assert isinstance(error, CredentialError)
    assert str(error) == f"{path} does not have one bearer credential of at most 16 KiB"


def test_a_bearer_file_whose_path_is_impossible() -> None:
    """It is the path that is at fault, not the service."""
    error = _failure_of(TokenSource("https://auth.example", SENDER, SCOPES, bearer_file="a\0b", max_wait=1))
    assert isinstance(error, CredentialError)


def test_a_bearer_file_that_comes_later(
    make_source: MakeSource, service: TLSService, authority: Authority, tmp_path: Path
) -> None:
    """As one that a sidecar writes: the call waits for it."""
    path = tmp_path / "bearer"
    source = make_source(service.url, bearer_file=path, cacert=authority.path, max_wait=1)
    assert str(_failure_of(source)) == f"cannot read {path}: No such file or directory"
    path.write_text(SECRETS["a"])
    wait_until(lambda: _has_token(source), within=20, what="a token")


def test_certificate_files_that_cannot_work(tmp_path: Path, authority: Authority) -> None:
    """Missing, no certificate, another key, an encrypted key: each is an error, and OpenSSL asks nobody."""
    pair = authority.issue("client")
    other = authority.issue("other")
    locked = tmp_path / "locked.key"
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    locked.write_bytes(private_pem(key, b"password"))  # type: ignore[arg-type]  # an EC key
    for cert, private, text in (
        (tmp_path / "none.pem", pair.key, "No such file or directory"),
        (locked, locked, ""),
        (pair.certificate, other.key, "KEY_VALUES_MISMATCH"),
        (pair.certificate, locked, "the key is encrypted; decrypt it"),
    ):
        error = _failure_of(
            TokenSource("https://localhost:1", SENDER, SCOPES, cert=cert, key=private, max_wait=1)
        )
        assert isinstance(error, CredentialError)
        assert str(error).startswith(f"cannot use {cert}, {private}: ")
        assert text in str(error)
