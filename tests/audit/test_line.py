"""One line per attempt: all fields, bounded, valid JSON for any request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from macp_auth.adapters.audit.line import (
    MAX_LINE_BYTES,
    LineTooLong,
    audit_line,
    check_line,
    dropped_line,
    summary_line,
    timestamp,
)
from macp_auth.adapters.audit.waiting import MAX_NAMES, Tally
from macp_auth.domain.callers import Caller, Method
from macp_auth.domain.claims import Claims
from macp_auth.domain.errors import InvalidScopes, MalformedJSON, NoGrant
from macp_auth.domain.minting import MintedToken, MintEvent, TokenRequest
from macp_auth.entrypoints.http.errors import reason_word, status_of

AT = 1_800_000_000.25
CLIENT = "192.0.2.7"
TOKEN = "header.payload.signature"


def attempt(outcome: MintedToken | Exception, request: TokenRequest | None = None, **of: Any) -> MintEvent:
    error = outcome if isinstance(outcome, Exception) else None
    return MintEvent(
        at=AT,
        client=of.get("client", CLIENT),
        request_id=of.get("id", "r-1"),
        request=request,
        minted=None if isinstance(outcome, Exception) else outcome,
        status=200 if error is None else status_of(error),
        reason=None if error is None else reason_word(error),
        caller=of.get("caller"),
        grant=of.get("grant"),
    )


def minted(
    sender: str = "agent://risk", scopes: dict[str, Any] | None = None, kid: str = "k1"
) -> MintedToken:
    now = int(AT)
    return MintedToken(TOKEN, kid, Claims(scopes or {}, sender, "i", "a", now, now + 300))


def written(of: MintEvent) -> Any:
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
        "truncated": [],
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
        "truncated": [],
    }


def test_a_refusal_before_the_body_is_read() -> None:
    """Nothing is known but who came and why they were refused; a Unix socket's client has no address."""
    line = written(attempt(MalformedJSON("invalid JSON body"), client=None))
    assert [line[name] for name in ("reason", "caller", "sender", "scopes", "ttl")] == [
        "invalid-json",
        *[None] * 4,
    ]


PLAYGROUND = Caller("playground", Method.JWT, "system:serviceaccount:macp:playground")


def test_an_authenticated_caller_is_named() -> None:
    """With the method, the subject and the grant; the address moves to a member of its own."""
    anonymous = written(attempt(minted()))
    line = written(attempt(minted(), caller=PLAYGROUND, grant="playground/1"))
    assert line == anonymous | {
        "caller": "playground",
        "method": "jwt",
        "subject": "system:serviceaccount:macp:playground",
        "grant": "playground/1",
        "client": "192.0.2.7",
    }


def test_a_refusal_names_the_caller_without_a_grant() -> None:
    """No grant decided; a Unix socket's client has no address."""
    line = written(attempt(NoGrant(), TokenRequest(sender="a", scopes={}), caller=PLAYGROUND, client=None))
    assert (line["status"], line["reason"]) == (403, "no-grant")
    assert [line[name] for name in ("caller", "method", "grant", "client")] == [
        "playground",
        "jwt",
        None,
        None,
    ]


@pytest.mark.parametrize("letter", ["a", "é", "\x7f", "\ud800", "\U000e0001"])
@pytest.mark.parametrize("length", [1, 100, 1000, 5000])
def test_a_subject_is_whole_or_left_out(letter: str, length: int) -> None:
    """Whatever a credential says, the token's sender and scopes stay, and so does the caller's name."""
    caller = Caller("c" * 64, Method.FORWARDED_CERTIFICATE, letter * length)
    scopes = {"allowed_modes": ["m" * 1500], "x": "y" * 300}
    for outcome, asked in (
        (minted("s" * 900, scopes), None),
        (InvalidScopes("x"), TokenRequest(sender="\x7f" * 300, scopes=scopes)),
    ):
        line = written(attempt(outcome, asked, caller=caller, grant="g" * 129, client="c" * 62, id="r" * 128))
        assert line["subject"] in (letter * length, None)
        assert (line["subject"] is None) == ("subject" in line["truncated"])
        assert (line["caller"], line["grant"]) == ("c" * 64, "g" * 129)
        if asked is None:
            assert line["scopes"]["allowed_modes"] == ["m" * 1500]
        if length == 1 and letter == "a" and asked is None:
            assert line["truncated"] == []


LETTERS = ["a", "é", "😀", '"', "\\", "\x00", "\x7f", "\u2028", "\U000e0001"]
"""Of one byte to twelve each in a line."""


@pytest.mark.parametrize("letter", LETTERS)
def test_the_longest_texts_fit_whatever_they_are_made_of(letter: str) -> None:
    """Sender and scopes of a refused request at their longest, under the longest request id."""
    asked = TokenRequest(sender=letter * 8000, scopes={letter * 5000: letter})
    line = written(attempt(InvalidScopes("x"), asked, id="r" * 128))
    assert (letter * 8000).startswith(line["sender"])
    assert line["sender"]
    assert line["scopes"] in (None, {})
    assert line["truncated"] in (["sender", "scopes"], ["sender", "unknown_scopes"])


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("part", ["sender", "mode", "modes"])
@pytest.mark.parametrize("caller", [None, Caller("c" * 64, Method.FORWARDED_CERTIFICATE, "s" * 2048)])
def test_what_matters_of_a_token_is_whole_or_the_token_is_refused(
    letter: str, part: str, caller: Caller | None
) -> None:
    """At every length: either the check refuses, or the line has the sender and the known scopes."""
    outcomes = set()
    left_out = ["unknown_scopes"] if caller is None else ["unknown_scopes", "subject"]
    for length in (1, 100, 270, 290, 560, 580, 850, 900, 1024, 1700, 1800, 3300, 3400, 3500, 3600, 4096):
        sender = letter * length if part == "sender" else "a"
        modes = {"mode": [letter * length], "modes": [letter] * length}.get(part, [])
        known = {"can_start_sessions": False, "allowed_modes": modes, "max_open_sessions": 2**64 - 1}
        token = minted(sender, {"x" * 3000: "y", **known, "z": {}}, "k" * 43)
        try:
            check_line(token.claims, token.kid, with_caller=caller is not None)
        except LineTooLong:
            outcomes.add("refused")
            continue
        line = written(attempt(token, id="r" * 128, client="c" * 62, caller=caller, grant="g" * 129))
        assert (line["sender"], line["kid"]) == (sender, "k" * 43)
        assert {name: line["scopes"][name] for name in known} == known
        outcomes.add("whole")
        assert line["truncated"] in ([], ["unknown_scopes"], left_out)
        assert (line["truncated"] == []) == ("z" in line["scopes"])
    assert outcomes == {"whole", "refused"}


def test_half_a_character_is_left_to_the_check_that_names_it() -> None:
    """It can be in no token, whose size is not the reason."""
    check_line(minted(scopes={"allowed_modes": ["\ud800" * 1000]}).claims, "k1")


def test_only_what_is_long_is_truncated() -> None:
    """A long sender of a refused request leaves the scopes, long scopes the sender."""
    asked = TokenRequest(sender="s" * 257, scopes={"x": 1})
    long_sender = written(attempt(InvalidScopes("x"), asked))
    assert (long_sender["sender"], long_sender["scopes"]) == ("s" * 256, {"x": 1})
    assert long_sender["truncated"] == ["sender"]
    long_scopes = written(attempt(minted("s" * 900, {"x": "y" * 5000, "is_observer": True})))
    assert (long_scopes["sender"], long_scopes["scopes"]) == ("s" * 900, {"is_observer": True})
    assert long_scopes["truncated"] == ["unknown_scopes"]
    assert written(attempt(minted("s" * 1024)))["truncated"] == []


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


def test_dropped_lines_have_a_line() -> None:
    """So that who reads the log knows that it has a gap, and of when."""
    assert json.loads(dropped_line(7, AT - 1, AT)) == {
        "time": "2027-01-15T08:00:00.250Z",
        "event": "dropped",
        "since": "2027-01-15T07:59:59.250Z",
        "lines": 7,
    }


def test_refusals_without_a_line_have_a_sum() -> None:
    """By reason; the most and longest reasons that there can be fit."""
    assert json.loads(summary_line({"invalid-json": 5}, AT - 10, AT)) == {
        "time": "2027-01-15T08:00:00.250Z",
        "event": "refused-summary",
        "since": "2027-01-15T07:59:50.250Z",
        "reasons": {"invalid-json": 5},
    }
    tally = Tally()
    for number in range(1000):
        tally.count(f"{number:099}", AT)
    reasons = dict.fromkeys(tally.report(AT).counts, 10**9)
    assert len(reasons) == MAX_NAMES + 1
    assert len(summary_line(reasons, AT, AT)) <= MAX_LINE_BYTES


def test_times_sort_as_text() -> None:
    """A jq filter compares them so."""
    moments = [AT, AT + 0.001, int(AT), int(AT) + 1, AT + 86400 * 365]
    assert sorted(map(timestamp, moments)) == [timestamp(moment) for moment in sorted(moments)]
