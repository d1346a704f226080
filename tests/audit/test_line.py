"""One attempt, one line: every field, bounded, valid JSON whatever was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from macp_auth.domain.claims import Claims
from macp_auth.domain.errors import InvalidScopes, MalformedJSON
from macp_auth.domain.keyring import MintedToken
from macp_auth.domain.minting import TokenRequest
from macp_auth.entrypoints.audit.line import MAX_LINE_BYTES, audit_line, lost_line, timestamp
from macp_auth.entrypoints.http.attempts import MintAttempt
from macp_auth.entrypoints.request_context import RequestContext

AT = 1_800_000_000.25
CLIENT: Any = {"client": ("192.0.2.7", 4711)}
TOKEN = "header.payload.signature"


def attempt(outcome: MintedToken | Exception, request: TokenRequest | None = None, **of: Any) -> MintAttempt:
    return MintAttempt(
        AT, 0.001, of.get("scope", CLIENT), RequestContext(of.get("id", "r-1")), request, outcome
    )


def minted(
    sender: str = "agent://risk", scopes: dict[str, Any] | None = None, kid: str = "k1"
) -> MintedToken:
    now = int(AT)
    return MintedToken(TOKEN, kid, Claims(scopes or {}, sender, "i", "a", now, now + 300))


def written(of: MintAttempt) -> Any:
    """The line as read back; checks what holds for each."""
    line = audit_line(of)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert len(line) <= MAX_LINE_BYTES
    assert TOKEN.encode() not in line
    return json.loads(line)


def test_a_minted_token() -> None:
    """All that is asked after a compromise, and of the token its SHA-256 only."""
    assert written(attempt(minted(scopes={"is_observer": True}))) == {
        "time": "2027-01-15T08:00:00.250Z",
        "event": "minted",
        "status": 200,
        "reason": None,
        "request_id": "r-1",
        "caller": "192.0.2.7",
        "sender": "agent://risk",
        "scopes": {"is_observer": True},
        "ttl": 300,
        "exp": 1_800_000_300,
        "kid": "k1",
        "token_sha256": "256d04db4e5e4ac308751ed0885b722b758630567c53a7125ed9fbd068e5c3f6",
        "cut": [],
    }


def test_a_refusal_has_the_same_fields() -> None:
    """With what was asked for, as far as it is known."""
    asked = TokenRequest(sender="agent://risk", scopes={"can_start_sessions": 1}, ttl_seconds=60.5)
    line = written(attempt(InvalidScopes("scopes.can_start_sessions must be a boolean or null"), asked))
    assert line == {
        "time": "2027-01-15T08:00:00.250Z",
        "event": "refused",
        "status": 400,
        "reason": "invalid-scopes",
        "request_id": "r-1",
        "caller": "192.0.2.7",
        "sender": "agent://risk",
        "scopes": {"can_start_sessions": 1},
        "ttl": 60.5,
        "exp": None,
        "kid": None,
        "token_sha256": None,
        "cut": [],
    }


def test_a_refusal_before_the_body_is_read() -> None:
    """Nothing is known but who came and why they were refused; a Unix socket's client has no address."""
    line = written(attempt(MalformedJSON(), scope={"client": None}))
    assert [line[name] for name in ("reason", "caller", "sender", "scopes", "ttl")] == [
        "invalid-json",
        *[None] * 4,
    ]


@pytest.mark.parametrize("letter", ["a", "é", "😀", '"', "\\", "\x00"])
def test_the_longest_texts_fit_whatever_they_are_made_of(letter: str) -> None:
    """Sender, kid and scopes at their longest, of one byte to six each in JSON."""
    line = written(attempt(minted(letter * 8000, {letter * 5000: letter}, letter * 256), id="r" * 128))
    assert line["kid"] == letter * 256
    assert line["sender"]
    assert (letter * 8000).startswith(line["sender"])
    assert line["scopes"] is None
    assert line["cut"] == ["sender", "scopes"]


def test_only_what_is_long_is_cut() -> None:
    """A long sender leaves the scopes, long scopes the sender."""
    long_sender = written(attempt(minted("s" * 257, {"x": 1})))
    assert (long_sender["sender"], long_sender["scopes"]) == ("s" * 256, {"x": 1})
    assert long_sender["cut"] == ["sender"]
    long_scopes = written(attempt(minted("s" * 64, {"x": "y" * 5000})))
    assert (long_scopes["sender"], long_scopes["scopes"]) == ("s" * 64, None)
    assert long_scopes["cut"] == ["scopes"]
    assert written(attempt(minted("s" * 256)))["cut"] == []


@pytest.mark.parametrize(
    "asked",
    [
        TokenRequest(sender="\ud800", scopes={}),
        TokenRequest(sender="a", scopes={"\ud800": "\udfff"}),
        TokenRequest(sender={"a": 1}, scopes=[1e400], ttl_seconds="60"),
        TokenRequest(sender=None, scopes=10**308, ttl_seconds=10**308),
        TokenRequest(sender="a\n{}\u2028", scopes="\r\n", ttl_seconds=True),
        TokenRequest(sender=["x" * 100_000], scopes=["x" * 100_000], ttl_seconds=-1e300),
    ],
)
def test_hostile_requests_make_valid_lines(asked: TokenRequest) -> None:
    """Half characters, other types, numbers out of range, line ends."""
    line = written(attempt(InvalidScopes("x"), asked))
    assert line["event"] == "refused"
    assert line["sender"] is None or isinstance(line["sender"], str)
    assert line["ttl"] is None


def test_lost_lines_have_a_line() -> None:
    """So that who reads the log knows that it has a gap."""
    assert json.loads(lost_line(7, AT)) == {"time": "2027-01-15T08:00:00.250Z", "event": "lost", "lines": 7}


def test_times_sort_as_text() -> None:
    """A jq filter compares them so."""
    moments = [AT, AT + 0.001, int(AT), int(AT) + 1, AT + 86400 * 365]
    assert sorted(map(timestamp, moments)) == [timestamp(moment) for moment in sorted(moments)]
