"""Callers by bearer secret."""

from __future__ import annotations

import hashlib

import pytest

from macp_auth.adapters.callers.file import parse_callers
from macp_auth.adapters.callers.secret import PREFIX, SecretMethod, digest_of, new_secret
from macp_auth.domain.callers import Caller, Credentials, Method
from macp_auth.domain.encoding import base64url
from macp_auth.domain.errors import BadCredential, CredentialFault

SECRET = PREFIX + base64url(bytes(range(32)))
METHOD = SecretMethod({digest_of(SECRET): "plane", digest_of(new_secret()): "other"})


def test_secret() -> None:
    """The caller is found by the digest."""
    assert METHOD.authenticate(Credentials(bearer=SECRET)) == Caller("plane", Method.SECRET, "plane")


def test_new_secret() -> None:
    """It has 256 random bits, a prefix, and no dot, so that it is never taken for a JWT."""
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(secret.startswith("macp_") and len(secret) == 48 and "." not in secret for secret in secrets)
    assert digest_of(SECRET) == hashlib.sha256(SECRET.encode()).digest()


def test_callers_file() -> None:
    """What the file holds is the digest in hexadecimal."""
    text = f'[[caller]]\nname = "plane"\nsecret_sha256 = "{digest_of(SECRET).hex()}"\n'
    callers = parse_callers(text.encode(), "FILE", audience="macp-runtime", max_ttl_seconds=3600)
    assert SecretMethod(callers.secrets).authenticate(Credentials(bearer=SECRET)) is not None


@pytest.mark.parametrize("bearer", [None, "", "x", "eyJhbGciOiJSUzI1NiJ9.e30.x", SECRET[5:], f" {SECRET}"])
def test_other_credentials(bearer: str | None) -> None:
    """A bearer without the prefix is for another method."""
    assert METHOD.authenticate(Credentials(bearer=bearer, forwarded="x", peer_is_loopback=True)) is None


def test_unknown_secret() -> None:
    """It is of the right form and belongs to nobody. One changed character suffices."""
    changed = SECRET[:-2] + ("A" if SECRET[-2] != "A" else "B") + SECRET[-1]
    for bearer in (new_secret(), changed, PREFIX + SECRET[5:].swapcase()):
        with pytest.raises(BadCredential) as raised:
            METHOD.authenticate(Credentials(bearer=bearer))
        assert raised.value.fault is CredentialFault.UNKNOWN_CALLER


@pytest.mark.parametrize(
    "bearer",
    [
        PREFIX,
        SECRET[:-1],
        f"{SECRET}A",
        f"{SECRET}\n",
        f"{SECRET}\0",
        f"{SECRET}=",
        f"{PREFIX}{'.' * 43}",
        PREFIX + "\N{LATIN SMALL LETTER SHARP S}" * 43,
        PREFIX + "\ud800" * 43,
        PREFIX + "a" * 2**20,
    ],
    ids=lambda bearer: f"{len(bearer)} characters",
)
def test_malformed_secret(bearer: str) -> None:
    """A cut or padded secret is reported as such in the log."""
    with pytest.raises(BadCredential) as raised:
        METHOD.authenticate(Credentials(bearer=bearer))
    assert raised.value.fault is CredentialFault.MALFORMED
