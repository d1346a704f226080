"""``macp-auth verify``: the verdict, and the reason in the words of the troubleshooting page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joserfc.jwk
import joserfc.jwt
import jwt
import pytest

from macp_auth.entrypoints import verification
from macp_auth.entrypoints.verification import Expected, judge
from tests.support import jwks
from tests.support.service import Service, clean_environment, free_port
from tests.support.tls import Pair, make_certificates
from tests.support.tls_service import TLSService, tls_settings

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


def published(*keys: dict[str, Any]) -> dict[str, jwt.PyJWK]:
    return {key["kid"]: jwt.PyJWK({**jwks.public(key), "alg": "ES256"}) for key in keys}


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
        (token(aud=["macp-runtime"]), [KEY], {"aud": verification.WRONG_AUDIENCE}),
        (token(exp=int(NOW) - 61), [KEY], {"exp": verification.EXPIRED}),
        (token(exp="soon"), [KEY], {"exp": verification.MALFORMED}),
        (token(exp=1e300), [KEY], {"exp": verification.MALFORMED}),
        (token(iat=int(NOW) + 61), [KEY], {"iat": verification.SKEW}),
        (token(iat=None), [KEY], {"iat": verification.MALFORMED}),
        (token(sub=""), [KEY], {"sub": verification.MALFORMED}),
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
    """A shared-secret token is called out, whatever its kid says."""
    forged = jwt.encode(CLAIMS, "x" * 32, algorithm="HS256", headers={"kid": "k"})
    assert verdict(forged, KEY)["alg"] == verification.ALGORITHM
    assert "signature" in verdict(forged, KEY)


COMMAND = [sys.executable, "-m", "macp_auth", "verify"]


def command(*args: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args],
        env=clean_environment(env), input=stdin, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


def test_command_on_a_live_service(service: Service) -> None:
    """Exit 0 and every claim for a good token, from an argument or from standard input."""
    text = service.mint(sender="agent://risk")["token"]
    url = f"{service.url}/.well-known/jwks.json"
    for run in (command(text, "--jwks", url), command("-", "--jwks", url, stdin=text + "\n")):
        assert run.returncode == 0, run.stderr
        assert "The token is good." in run.stdout
        assert "'agent://risk'" in run.stdout
        assert run.stdout.count("ok   ") == 8


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
    ("url", "mend"),
    [
        ("http://127.0.0.1:{port}/jwks", "nothing listens there; start the service"),
        ("http://nowhere.invalid/jwks", "mend the host"),
        ("http://127.0.0.1:x/jwks", "/jwks: "),
        ("file:///etc/hostname", "must begin with http:// or https://"),
        ("nonsense", "must begin with http:// or https://"),
    ],
)
def test_command_without_a_service(url: str, mend: str) -> None:
    """What is wrong, and what mends it."""
    assert mend in without_keys("--jwks", url.format(port=free_port()))


@pytest.mark.parametrize(
    ("path", "mend"),
    [("/healthz", "no JWK Set"), ("/jwks", "the answer is 404; the path is /.well-known/jwks.json")],
)
def test_command_on_something_else_than_jwks(service: Service, path: str, mend: str) -> None:
    """The service is there, and the path is wrong."""
    assert mend in without_keys("--jwks", service.url + path)


def test_command_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    """It is named by an option, without which the mend is that option; or by OpenSSL's variable."""
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
    """The mend is the scheme."""
    url = service.url.replace("http", "https")
    assert "is it http://?" in without_keys("--jwks", f"{url}/.well-known/jwks.json")


@pytest.mark.parametrize("stdin", [bytes(range(128, 256)), b"\xc3\xa4.\xc3\xb6.\xc3\xbc", b"\0"])
def test_command_on_what_is_no_text(service: Service, stdin: bytes) -> None:
    """It is malformed, as any other text that is no token."""
    url = f"{service.url}/.well-known/jwks.json"
    run = subprocess.run(
        [*COMMAND, "-", "--jwks", url],
        env=clean_environment(), input=stdin, capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (1, b"")
    assert verification.MALFORMED in run.stdout.decode()
