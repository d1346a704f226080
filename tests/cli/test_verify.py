"""``macp-auth verify``: the verdict, and the reason in the words of the troubleshooting page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import joserfc.jwk
import joserfc.jwt
import jwt
import pytest

from macp_auth.entrypoints import verification
from macp_auth.entrypoints.verification import Expected, judge
from tests.support import jwks
from tests.support.service import Service, clean_environment, free_port

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


def command(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    full = [sys.executable, "-m", "macp_auth", "verify", *args]
    return subprocess.run(
        full, env=clean_environment(), input=stdin, capture_output=True, text=True, timeout=20, check=False
    )


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


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/jwks", "file:///etc/hostname", "nonsense"])
def test_command_without_keys(url: str) -> None:
    """Exit 2 and one line: the token was not judged."""
    run = command("x.y.z", "--jwks", url.format(port=free_port()))
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("can't fetch the keys: ")
    assert "Traceback" not in run.stderr


def test_command_on_something_else_than_jwks(service: Service) -> None:
    run = command(token(), "--jwks", f"{service.url}/healthz")
    assert run.returncode == 2
    assert run.stderr.startswith("can't fetch the keys: ")
