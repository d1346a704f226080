"""Patterns that no text can make slow."""

from __future__ import annotations

import pickle
import time

import pytest

from macp_auth.adapters.linear_pattern import InvalidPattern, LinearPattern
from macp_auth.domain.sender import MAX_SENDER_CHARS


def test_the_whole_text_must_match() -> None:
    pattern = LinearPattern("agent://[a-z]+")
    assert pattern.matches("agent://risk")
    for text in ("agent://risk/x", "xagent://risk", "agent://r\u0456sk", "agent://risk\n", ""):
        assert not pattern.matches(text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [(r"\p{Greek}+", "\u03b1\u03b2"), (r"[\p{Greek}-]{2}", "\u03b1-"), (".", "\U0001f600"), ("(?i)a", "A")],
)
def test_unicode(pattern: str, text: str) -> None:
    """A character counts as one, whatever its size in UTF-8."""
    assert LinearPattern(pattern).matches(text)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(?=a)a", "(?!a)b", "(?<=a)b", r"(a)\1", "(?>a)b", "a++", r"a\Z", "(?P<n>a)(?P=n)"),
        *("(", "[a", "*", "a{1001}"),
        *("(a*){700}", "((a?){100}){10}", r"\pL{1,100}"),
    ],
)
def test_unusable_patterns(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What RE2 can't take, or would take long for, is refused, and shown nowhere."""
    with pytest.raises(InvalidPattern) as refused:
        LinearPattern(pattern)
    assert pattern not in str(refused.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "pattern",
    [
        "agent://[a-z0-9-]+-[a-z0-9-]+",
        "(a+)+b",
        "(a|aa)+b",
        "(.*)*(.*)*x",
        "(a|b)*a(a|b){400}",
        "(a*b*){140}z",
        "(.*){60}z",
        "((a?){10}){25}b",
        ".*a.{70}",
    ],
)
def test_no_text_is_slow(pattern: str) -> None:
    """Patterns that exhaust a backtracking engine, or RE2's memory for states."""
    compiled = LinearPattern(pattern)
    for unit in ("a", "ab", "aab", "agent://a-", "\u00e9", "\U00010400"):
        text = (unit * MAX_SENDER_CHARS)[: MAX_SENDER_CHARS - 1] + "!"
        before = time.process_time()
        compiled.matches(text)
        assert time.process_time() - before < 0.05


def test_it_can_be_handed_to_a_worker() -> None:
    pattern = LinearPattern("a+")
    handed_over = pickle.loads(pickle.dumps(pattern))  # noqa: S301 - our own bytes
    assert handed_over == pattern
    assert hash(handed_over) == hash(pattern)
    assert handed_over.matches("aa")
    assert handed_over != LinearPattern("a")
