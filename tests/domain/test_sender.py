"""Who may be minted for."""

from __future__ import annotations

import re

import pytest

from macp_auth.domain.errors import InvalidSender
from macp_auth.domain.sender import SenderPolicy


@pytest.mark.parametrize(
    "sender",
    ["alice", "agent://risk", "a b", "../../etc/passwd", "😀", "e\u0301", "\u0430lice", "漢字", "x" * 5000],
)
def test_kept_as_sent(sender: str) -> None:
    """What a person can see is minted untouched: not trimmed, not normalised."""
    assert SenderPolicy().check(sender) == sender


@pytest.mark.parametrize(
    "sender", [None, 42, True, {}, ["a"], "", " ", "\t\n", "\u00a0", "\ufeff", "\u3000 "]
)
def test_required(sender: object) -> None:
    """Absent, another type and blank are one and the same to a caller."""
    with pytest.raises(InvalidSender, match="^sender is required$"):
        SenderPolicy().check(sender)


@pytest.mark.parametrize(
    "character",
    [
        *("\x00", "\t", "\n", "\x1b", "\x7f", "\x85"),
        *("\u00ad", "\u061c", "\u200b", "\u200d", "\u200e", "\u202e", "\u2066", "\u2060", "\ufeff"),
        *("\u034f", "\u115f", "\u180b", "\u2800", "\u3164", "\ufe0f", "\uffa0", "\U000e0100", "\U000e0041"),
        *("\u00a0", "\u2003", "\u2028", "\u3000", "\ue000", "\ufffe", "\ud800", "\udfff"),
    ],
    ids=lambda character: f"U+{ord(character):04X}",
)
def test_invisible_characters(character: str) -> None:
    """Control, formatting, filler, odd white space, private use and half surrogates are refused."""
    with pytest.raises(InvalidSender, match="invisible"):
        SenderPolicy().check(f"ali{character}ce")


@pytest.mark.parametrize("sender", [" alice", "alice ", "  alice  "])
def test_surrounding_space(sender: str) -> None:
    """Spaces at the ends make two names that look like one."""
    with pytest.raises(InvalidSender, match="begin or end"):
        SenderPolicy().check(sender)


def test_pattern_matches_the_whole_sender() -> None:
    """The operator's pattern closes what no general rule can: look-alikes and foreign naming schemes."""
    policy = SenderPolicy(re.compile(r"agent://[a-z]+"))
    assert policy.check("agent://risk") == "agent://risk"
    for sender in ("agent://risk/x", "xagent://risk", "agent://r\u0456sk", "alice"):
        with pytest.raises(InvalidSender, match="may mint for"):
            policy.check(sender)
