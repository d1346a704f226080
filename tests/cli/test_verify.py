"""``macp-auth verify``: the verdict, and the reason in the words of the troubleshooting page."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import joserfc.jwk
import joserfc.jwt
import jwt
import pytest

from macp_auth.entrypoints.cli import verification
from macp_auth.entrypoints.cli.runtime_keys import PublishedKey, read_jwks
from macp_auth.entrypoints.cli.verification import Expected, judge
from tests.support import jwks
from tests.support.fake_server import FakeServer, Reply
from tools.macp_runtime.cases import Case, all_cases
from tools.support.bounded import HANG_SECONDS
from tools.support.service import Service, clean_environment, free_port
from tools.support.tls import Pair, make_certificates
from tools.support.tls_service import TLSService, tls_settings

NOW = 1_800_000_000.0
EXPECTED = Expected(issuer="macp-auth-service", audience="macp-runtime", leeway=60)
KEY = {**jwks.ec(), "kid": "k"}
CLAIMS = {
    "macp_scopes": {},
    "sub": "alice",
    "iss": "macp-auth-service",
    "aud": "macp-runtime",
    "iat": int(NOW),
    "exp": int(NOW) + 300,
}


def token(key: dict[str, Any] = KEY, header: dict[str, Any] | None = None, **claims: Any) -> str:
    return joserfc.jwt.encode(
        {"alg": "ES256", "kid": key["kid"], **(header or {})},
        {**CLAIMS, **claims},
        joserfc.jwk.ECKey.import_key(key),
    )


def published(*keys: dict[str, Any]) -> Sequence[PublishedKey]:
    document = {"keys": [{**jwks.public(key), "alg": "ES256"} for key in keys]}
    return read_jwks(json.dumps(document).encode()) if keys else []


def verdict(text: str, *keys: dict[str, Any]) -> dict[str, str]:
    """The failed checks, each with its advice."""
    return {f.check: f.advice for f in judge(text, published(*keys), EXPECTED, NOW) if not f.good}


@pytest.mark.parametrize("exp", [NOW + 300, NOW + 1, NOW - 59])
def test_good(exp: float) -> None:
    """Also when it expired within the leeway that the runtime allows."""
    assert verdict(token(exp=int(exp)), KEY) == {}


@pytest.mark.parametrize(
    ("text", "keys", "failed"),
    [
        (token(), [], {"kid": verification.STALE_CACHE}),
        (token(), [{**jwks.ec(copy=1), "kid": "k"}], {"signature": verification.WRONG_SIGNATURE}),
        (token()[:-8] + "AAAAAAAA", [KEY], {"signature": verification.WRONG_SIGNATURE}),
        (token(iss="other"), [KEY], {"iss": verification.WRONG_ISSUER}),
        (token(aud=["other"]), [KEY], {"aud": verification.WRONG_AUDIENCE}),
        (token(aud=None), [KEY], {"aud": verification.WRONG_AUDIENCE}),
        (token(exp=int(NOW) - 61), [KEY], {"exp": verification.EXPIRED}),
        (token(exp="soon"), [KEY], {"exp": verification.MALFORMED}),
        (token(exp=1e300), [KEY], {"exp": verification.MALFORMED}),
        (token(iat=int(NOW) + 61), [KEY], {"iat": verification.SKEW}),
        (token(iat=None), [KEY], {"iat": verification.MALFORMED}),
        (token(sub=""), [KEY], {"sub": verification.SENDER}),
        (token(sub="a\u200bb"), [KEY], {"sub": verification.SENDER}),
        (token(sub=7), [KEY], {"sub": verification.MALFORMED}),
        ("not.a.jwt", [KEY], {"format": verification.MALFORMED}),
        ("\udcff.y.z", [KEY], {"format": verification.MALFORMED}),
        ("", [KEY], {"format": verification.MALFORMED}),
        (
            token(iss="x", aud="y", exp=1),
            [],
            {
                "kid": verification.STALE_CACHE,
                "iss": verification.WRONG_ISSUER,
                "aud": verification.WRONG_AUDIENCE,
                "exp": verification.EXPIRED,
            },
        ),
    ],
)
def test_bad(text: str, keys: list[dict[str, Any]], failed: dict[str, str]) -> None:
    """Exactly the checks that fail, all of them, each with its cause."""
    assert verdict(text, *keys) == failed


def test_foreign_algorithm() -> None:
    """A token with a shared secret is reported, with any kid."""
    forged = jwt.encode(CLAIMS, "x" * 32, algorithm="HS256", headers={"kid": "k"})
    assert verdict(forged, KEY)["alg"] == verification.ALGORITHM
    assert "signature" in verdict(forged, KEY)


@pytest.mark.parametrize(
    ("name", "advice"),
    {
        "macp_scopes missing": verification.NO_SCOPES,
        "macp_scopes []": verification.NO_SCOPES,
        "max_open_sessions -1": verification.SCOPE_TYPE,
        'can_start_sessions "x"': verification.SCOPE_TYPE,
        'macp_scopes {"can_start_session":false}': verification.SCOPE_NAME,
        "sub twice": verification.REPEATED,
        "payload text: repeats inside": verification.REPEATED,
        "exp @300@.5": verification.WHOLE_SECONDS,
        "exp @3153600000@": verification.LIFETIME,
        "exp @-60@": verification.EXPIRED,
        "payload text: BOM": verification.MALFORMED,
        "token: padded payload": verification.MALFORMED,
        "header jwk null": "",
        'other "\\\\ud800"': verification.UNREADABLE,
        'header crit ["exp"]': verification.CRITICAL,
        "header b64 false": verification.CRITICAL,
        "too large for metadata": verification.TOO_LARGE,
        "nbf @3600@": verification.NOT_YET,
        "RSA 1024": verification.KEY_SIZE,
        "RSA 2047": verification.KEY_SIZE,
        "EC P-384 for ES256": verification.KEY_SIZE,
        "EC, use enc": verification.KEY_PURPOSE,
        "EC, private part": verification.PRIVATE_KEY,
        "set: same kid, this first": verification.SAME_KID,
        "header kid missing": verification.STALE_CACHE,
        'aud ["macp-runtime"]': "",
    }.items(),
)
def test_what_a_verifier_refuses_is_not_good(name: str, advice: str) -> None:
    """The one check that fails, with its cause, also where only the MACP runtime is lenient."""
    case = next(case for case in all_cases() if case.id == name)
    findings = judge(case.token(int(NOW)), read_jwks(case.document().encode()), EXPECTED, NOW)
    assert [finding.advice for finding in findings if not finding.good] == [advice] * bool(advice)


COMMAND = [sys.executable, "-m", "macp_auth", "verify"]


def command(*args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args],
        env=clean_environment(env), input=stdin, capture_output=True, text=True,
        timeout=HANG_SECONDS, check=False,
    )  # fmt: skip


def test_command_on_a_live_service(service: Service) -> None:
    """Exit 0 and every claim for a good token, from an argument or from standard input."""
    text = service.mint(sender="agent://risk")["token"]
    url = f"{service.url}/.well-known/jwks.json"
    for run in (command(text, "--jwks", url), command("-", "--jwks", url, stdin=text + "\n")):
        assert run.returncode == 0, run.stderr
        assert "The token is good." in run.stdout
        assert "'agent://risk'" in run.stdout
        assert run.stdout.count("ok   ") == 9


def test_a_server_that_sends_a_byte_at_a_time() -> None:
    """It holds the command for no longer than one that says nothing."""

    def drip(listener: socket.socket) -> None:
        with suppress(OSError), listener.accept()[0] as client:
            client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while not done.wait(0.2):
                client.sendall(b" ")

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=[listener], daemon=True)
        thread.start()
        said = without_keys("--jwks", f"http://127.0.0.1:{listener.getsockname()[1]}/")
        done.set()
        thread.join(HANG_SECONDS)
    assert "no response within 5 s" in said


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_a_time_that_no_calendar_has(claim: str) -> None:
    """It is a finding, and no traceback."""
    claims: dict[str, Any] = {claim: -90_000_000_000}
    judge(token(**claims), published(KEY), EXPECTED, NOW)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_proxy_is_not_asked_for_what_is_on_this_machine(service: Service, host: str) -> None:
    """It would use its own loopback, and the service would seem not to run."""
    proxy = f"http://127.0.0.1:{free_port()}"
    url = f"http://{host}:{service.port}/.well-known/jwks.json"
    run = command(service.mint()["token"], "--jwks", url, http_proxy=proxy, HTTP_PROXY=proxy, no_proxy="")
    assert run.returncode == 0, run.stderr
    elsewhere = command("x.y.z", "--jwks", "http://auth.invalid/jwks", http_proxy=proxy)
    assert "connection refused" in elsewhere.stderr, "the proxy was asked"


@pytest.mark.parametrize("content", [None, "", "no PEM"])
def test_a_file_that_is_no_authority(tmp_path: Path, content: str | None) -> None:
    """One line, and no wait for a named pipe without a writer."""
    file = tmp_path / "ca.pem"
    if content is None:
        os.mkfifo(file)
    else:
        file.write_text(content)
    said = without_keys("--jwks", "https://127.0.0.1:1/", "--cacert", str(file))
    assert ("it is not a regular file" if content is None else "must be a PEM file") in said


def test_command_on_a_token_of_another_service(
    service: Service, start_service: Callable[..., Service]
) -> None:
    """Exit 1, and why: two ephemeral services share a kid, and not the key."""
    other = start_service()
    run = command(
        other.mint()["token"], "--jwks", f"{service.url}/.well-known/jwks.json", "--audience", "elsewhere"
    )
    assert run.returncode == 1
    assert "The token is not good." in run.stdout
    assert verification.WRONG_SIGNATURE in run.stdout
    assert verification.WRONG_AUDIENCE in run.stdout


def without_keys(*args: str) -> str:
    """Exit 2 and one line: the token was not judged."""
    run = command("x.y.z", *args)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("macp-auth: can't fetch the keys: ")
    return run.stderr


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://127.0.0.1:{port}/jwks", "connection refused; start the service"),
        ("http://nowhere.invalid/jwks", "cannot resolve the host"),
        ("http://127.0.0.1:x/jwks", "the URL is malformed"),
        ("file:///etc/hostname", "must begin with http:// or https://"),
        ("nonsense", "must begin with http:// or https://"),
    ],
)
def test_command_without_a_service(url: str, remedy: str) -> None:
    """What is wrong, and what fixes it."""
    assert remedy in without_keys("--jwks", url.format(port=free_port()))


@pytest.mark.parametrize(
    ("path", "remedy"),
    [("/healthz", "not a JWK Set"), ("/jwks", "the response status is 404; the path is /.well-known")],
)
def test_command_on_something_else_than_jwks(service: Service, path: str, remedy: str) -> None:
    """The service is there, and the path is wrong."""
    assert remedy in without_keys("--jwks", service.url + path)


def test_command_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    """It is named by an option, without which the remedy is that option; or by OpenSSL's variable."""
    certificates = make_certificates(tmp_path)
    pair = Pair(certificates.certificate, certificates.key)
    with TLSService(tmp_path, certificates.ca, tls_settings(pair)) as service:
        url = f"{service.url}/.well-known/jwks.json"
        named = ["--cacert", str(certificates.ca)]
        assert "with --cacert" in without_keys("--jwks", url)
        assert "must be a PEM file" in without_keys("--jwks", url, "--cacert", str(certificates.key))
        assert "https://?" in without_keys("--jwks", url.replace("https", "http"), *named)
        for judged in (
            command(token(), "--jwks", url, *named),
            command(token(), "--jwks", url, SSL_CERT_FILE=str(certificates.ca)),
        ):
            assert judged.returncode == 1
            assert "'k' is not among the 1 published" in judged.stdout


def test_command_where_no_tls_is_spoken(service: Service) -> None:
    """The remedy is the scheme."""
    url = service.url.replace("http", "https")
    assert "is it http://?" in without_keys("--jwks", f"{url}/.well-known/jwks.json")


@pytest.mark.parametrize("stdin", [bytes(range(128, 256)), b"\xc3\xa4.\xc3\xb6.\xc3\xbc", b"\0"])
def test_command_on_what_is_no_text(service: Service, stdin: bytes) -> None:
    """It is malformed, as any other text that is no token."""
    url = f"{service.url}/.well-known/jwks.json"
    run = subprocess.run(
        [*COMMAND, "-", "--jwks", url],
        env=clean_environment(), input=stdin, capture_output=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (1, b"")
    assert verification.MALFORMED in run.stdout.decode()


@pytest.fixture
def published_case(request: pytest.FixtureRequest) -> Iterator[tuple[Case, str]]:
    """A recorded case, and where a server of ours publishes its keys."""
    case = next(case for case in all_cases() if case.id == request.param)
    with FakeServer(lambda _: Reply(200, case.document().encode())) as server:
        yield case, f"{server.url}/jwks"


REFUSED = [
    "macp_scopes missing",
    "max_open_sessions -1",
    "sub twice",
    "exp @300@.5",
    "payload text: BOM",
    "RSA 1024",
    "EC, use enc",
    "nbf @3600@",
]


@pytest.mark.parametrize("published_case", REFUSED, indirect=True)
def test_command_on_what_it_once_called_good(published_case: tuple[Case, str]) -> None:
    """Exit 1, and the last line says so."""
    case, url = published_case
    run = command("-", "--jwks", url, stdin=case.token(int(time.time())))
    assert run.returncode == 1, run.stdout
    assert run.stdout.endswith("The token is not good.\n")
    lenient = "The MACP runtime accepts it" in run.stdout
    assert lenient == (case.id in {"macp_scopes missing", "exp @300@.5", "EC, use enc", "nbf @3600@"})


@pytest.mark.parametrize("published_case", ["good"], indirect=True)
def test_command_on_what_is_good(published_case: tuple[Case, str]) -> None:
    """Exit 0: what makes the others bad is in them."""
    case, url = published_case
    assert command("-", "--jwks", url, stdin=case.token(int(time.time()))).returncode == 0


def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    """C1 controls, overrides of direction and line separators are escaped, wherever they stand."""
    hostile = "\x1b[2J\x9b31m\u202e\u2028\u200b"
    text = token(
        iss=hostile, aud=[hostile], sub=hostile, nbf=hostile, iat=hostile, exp=hostile,
        macp_scopes={hostile: hostile, "allowed_modes": [hostile, 1]},
    )  # fmt: skip
    shown = "".join(finding.found for finding in judge(text, published(KEY), EXPECTED, NOW))
    assert shown.isprintable()
