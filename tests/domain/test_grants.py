"""What a caller may ask for."""

from __future__ import annotations

import pickle
import re
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from macp_auth.domain.callers import Caller, Method
from macp_auth.domain.errors import AudienceNotGranted, InvalidTTL, NoGrant, ScopeNotGranted
from macp_auth.domain.grants import Ceiling, Grant, Grants, narrow
from macp_auth.domain.scopes import KNOWN_SCOPES
from macp_auth.domain.ttl import TTLPolicy

CALLER = Caller("caller", Method.SECRET, "caller")
NOTHING = {
    "can_start_sessions": False,
    "can_manage_mode_registry": False,
    "is_observer": False,
    "max_open_sessions": 0,
    "allowed_modes": [],
}
ALL = Ceiling(
    can_start_sessions=True,
    can_manage_mode_registry=True,
    is_observer=True,
    allowed_modes=("*",),
    max_open_sessions=8,
)
POLICY = TTLPolicy(default=300, maximum=3600)


def grant(*senders: str, name: str = "caller/1", **members: Any) -> Grant:
    members = {"audiences": ("macp-runtime",), "max_ttl_seconds": 900, **members}
    return Grant(name=name, senders=senders, **members)


def decide(sender: str, *patterns: str | tuple[str, ...]) -> int | None:
    """The index of the grant that decides, of grants with these senders."""
    senders = [(each,) if isinstance(each, str) else each for each in patterns]
    grants = Grants({"caller": [grant(*each, name=str(index)) for index, each in enumerate(senders)]})
    try:
        return int(grants.decide(CALLER, sender).name)
    except NoGrant:
        return None


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("risk-agent", ["risk-agent"], ["risk-agen", "risk-agent2", "Risk-agent", "", "a risk-agent"]),
        ("fraud-*", ["fraud-", "fraud-1", "fraud-*"], ["fraud", "xfraud-1", "fraud_1"]),
        ("*-agent", ["-agent", "risk-agent", "-agent-agent"], ["agent", "-agents", "-agent "]),
        ("*", ["", "a", "agent://x", "a\nb", "\ud800"], []),
        ("**", ["", "a"], []),
        ("a*a", ["aa", "aba", "aaa"], ["a", "ab", "ba", ""]),
        ("ab*bc", ["abbc", "abxbc"], ["abc"]),
        ("a*b*c", ["abc", "axbxc", "abbbc", "abcc"], ["acb", "ab", "bc"]),
        ("*ab*ab*", ["abab", "xabxabx"], ["ab", "aba", "abba"]),
        ("*ab*b", ["abb", "xabxb"], ["xab", "abxx"]),
        ("*.*", [".", "a.b"], ["ab"]),
        ("[a-z]?", ["[a-z]?"], ["b?", "bc"]),
        ("a\\*", ["a\\", "a\\b"], ["a*"]),
    ],
)
def test_senders(pattern: str, matching: list[str], others: list[str]) -> None:
    """A star is any text, nothing else is special, and the whole sender must match."""
    assert {sender: decide(sender, pattern) for sender in matching} == dict.fromkeys(matching, 0)
    assert {sender: decide(sender, pattern) for sender in others} == dict.fromkeys(others)


PATTERNS = st.lists(st.lists(st.text("ab*", max_size=6), min_size=1, max_size=3).map(tuple), max_size=8)


@given(PATTERNS, st.text("ab*", max_size=8))
@example([("a*",), ("aa",)], "aa")
@example([("aa",), ("a*",)], "aa")
@example([("b*", "*b"), ("*",), ("ab",)], "ab")
@example([("*ba",), ("ab*",)], "aba")
def test_the_first_grant_whose_senders_match_decides(patterns: list[tuple[str, ...]], sender: str) -> None:
    """The index finds the grant that a search in order finds."""

    def matches(pattern: str) -> bool:
        expression = ".*".join(map(re.escape, pattern.split("*")))
        return re.fullmatch(expression, sender, re.DOTALL) is not None

    fitting = [index for index, senders in enumerate(patterns) if any(map(matches, senders))]
    assert decide(sender, *patterns) == (fitting[0] if fitting else None)


@given(PATTERNS)
@example([("a*",), ("ab",)])
@example([("a*",), ("ab", "b")])
@example([("*",), ("*",)])
@example([("a*b",), ("a*",)])
@example([("*a*",), ("ab*ba", "a")])
def test_a_grant_that_never_decides_is_found(patterns: list[tuple[str, ...]]) -> None:
    """Each of its patterns is covered by an earlier one: with any text for its stars, that matches."""
    grants = Grants({"caller": [grant(*each, name=str(index)) for index, each in enumerate(patterns)]})
    found = {int(late.name): int(early.name) for late, early in grants.never_deciding()}
    assert all(early < late for late, early in found.items())
    for index, senders in enumerate(patterns):
        filled = [pattern.replace("*", text) for pattern in senders for text in ("", "c", "ab", "ba", "acb")]
        if index in found:
            assert all(decide(sender, *patterns) != index for sender in filled)
        else:
            assert any(decide(pattern.replace("*", "c"), *patterns) == index for pattern in senders)


def test_the_grants_of_each_caller() -> None:
    """In their order, and a caller without any is there, too."""
    one, two = grant("*", name="caller/1"), grant("a", name="caller/2")
    assert Grants({"caller": [one, two], "other": []}).by_caller() == {"caller": (one, two), "other": ()}
    assert list(Grants({"caller": [one, two], "other": [two]}).never_deciding()) == [(two, one)]


def test_a_hard_pattern_takes_no_longer() -> None:
    """Backtracking would try more ways than there are atoms: the test would not end."""
    assert decide("a" * 1024, "*a" * 500 + "b") is None
    assert decide("a" * 1024, "*a" * 500 + "*") == 0


def test_another_caller_s_grants_are_not_used() -> None:
    """Nor does a caller that was removed from the file have any."""
    grants = Grants({"other": [grant("*")], "caller": []})
    for name in ("caller", "removed"):
        with pytest.raises(NoGrant, match=r"^no grant for this sender$"):
            grants.decide(Caller(name, Method.JWT, "x"), "a")


def test_grants_reach_another_process() -> None:
    """They can be pickled for a worker."""
    grants = pickle.loads(pickle.dumps(Grants({"caller": [grant("a*"), grant("b")]})))  # noqa: S301
    assert grants.decide(CALLER, "b").senders == ("b",)


def test_audiences() -> None:
    """The first is for requests that name none; no other than those of the grant is minted."""
    both = grant("*", audiences=("one", "two"))
    assert [both.audience(requested) for requested in (None, "one", "two")] == ["one", "one", "two"]
    for requested in ("", "ONE", "on", "one ", ["one"], {"one": 1}, 1, True):
        with pytest.raises(AudienceNotGranted, match=r"^audience is not granted for this sender$"):
            both.audience(requested)


@pytest.mark.parametrize(
    ("most", "requested", "minted"),
    [(900, None, 300), (900, 600, 600), (900, 900.4, 900), (900, 901, 900), (900, 1e9, 900), (60, None, 60),
     (1, 0.1, 1), (100_000, 1e9, 3600), (100_000, None, 300)],
)  # fmt: skip
def test_lifetimes(most: int, requested: float | None, minted: int) -> None:
    """A longer request is cut, and so is the service's default; the service's maximum stays."""
    assert grant("*", max_ttl_seconds=most).ttl(requested, POLICY) == minted


@pytest.mark.parametrize("requested", [0, -1, "60", True, float("nan")])
def test_invalid_lifetimes(requested: object) -> None:
    """As without a grant."""
    with pytest.raises(InvalidTTL):
        grant("*").ttl(requested, POLICY)


def test_a_ceiling_has_the_fields_that_the_runtime_reads() -> None:
    """A field that it lacked would be minted with the runtime's default."""
    assert set(Ceiling.__struct_fields__) == set(KNOWN_SCOPES)


@pytest.mark.parametrize("scopes", [{}, dict.fromkeys(KNOWN_SCOPES)], ids=["absent", "null"])
def test_what_a_request_leaves_out_is_the_ceiling(scopes: dict[str, Any]) -> None:
    """Never the runtime's default."""
    ceiling = Ceiling(can_start_sessions=True, allowed_modes=("b", "a", ""), max_open_sessions=4)
    assert narrow(scopes, ceiling) == {
        **NOTHING,
        "can_start_sessions": True,
        "max_open_sessions": 4,
        "allowed_modes": ["b", "a", ""],
    }
    assert narrow(scopes, grant("*").scopes) == NOTHING


def test_all_modes() -> None:
    """Only the absence of the field grants them; null would, too, but would look like a mistake."""
    assert "allowed_modes" not in narrow({}, ALL)
    assert "allowed_modes" not in narrow({"allowed_modes": None}, ALL)
    assert narrow({"allowed_modes": ["x", "*", "x"]}, ALL)["allowed_modes"] == ["x", "*", "x"]
    assert narrow({"allowed_modes": []}, ALL)["allowed_modes"] == []


@pytest.mark.parametrize(
    ("field", "value", "ceiling"),
    [
        ("can_start_sessions", True, Ceiling()),
        ("can_manage_mode_registry", True, Ceiling(can_start_sessions=True)),
        ("is_observer", True, Ceiling()),
        ("max_open_sessions", 1, Ceiling()),
        ("max_open_sessions", 2**64 - 1, Ceiling(max_open_sessions=2**63 - 1)),
        ("allowed_modes", ["a"], Ceiling()),
        ("allowed_modes", ["a", "b"], Ceiling(allowed_modes=("a",))),
        ("allowed_modes", ["*"], Ceiling(allowed_modes=("a",))),
        ("allowed_modes", ["a"], Ceiling(allowed_modes=("*", "b"))),
        ("allowed_modes", [""], Ceiling(allowed_modes=("a",))),
    ],
)
def test_more_than_the_ceiling(field: str, value: object, ceiling: Ceiling) -> None:
    """It is refused, not cut: the caller must not believe that it has what it asked for."""
    with pytest.raises(ScopeNotGranted, match=f"^scopes.{field} is more than is granted for this sender$"):
        narrow({field: value}, ceiling)


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("tenant", "tenant"),
        ("a\x1b[2J\u202e", "a\\u001b[2J\\u202e"),
        ("\ud800", "\\ud800"),
        ("x" * 99, "x" * 64),
    ],
)
def test_unknown_fields_are_refused(field: str, shown: str) -> None:
    """No grant can cover what the runtime does not read, and another reader may. Null makes no difference."""
    values: list[object] = [None, 1, {}]
    for value in values:
        with pytest.raises(ScopeNotGranted) as raised:
            narrow({field: value}, ALL)
        assert raised.value.field == shown


@pytest.mark.parametrize(
    "scopes", [{"max_open_sessions": -1}, {"max_open_sessions": 2**63}, {"is_observer": None}, {"tenant": 1}]
)
def test_a_ceiling_that_is_none(scopes: dict[str, Any]) -> None:
    """It is read from a file as it is."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(scopes, Ceiling)
