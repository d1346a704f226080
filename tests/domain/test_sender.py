"""Who may be minted for."""

from __future__ import annotations

import pytest

from macp_auth.domain.errors import InvalidSender
from macp_auth.domain.sender import SenderPolicy


@pytest.mark.parametrize(
    "sender",
    ["alice", "agent://risk", "a b", "../../etc/passwd", "😀", "e\u0301", "\u0430lice", "漢字", "x" * 1024],
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


@pytest.mark.parametrize("character", ["x", " ", "\x00", "\U0001f600"])
def test_too_long(character: str) -> None:
    """The length of a sender is checked before its content."""
    with pytest.raises(InvalidSender, match=r"^sender is too long: the limit is 1024 characters$"):
        SenderPolicy(lambda _: pytest.fail("looked at")).check(character * 1025)


def test_the_naming_scheme_decides() -> None:
    """The operator's rule excludes what no general one can: look-alikes and other naming schemes."""
    policy = SenderPolicy(lambda sender: sender.startswith("agent://"))
    assert policy.check("agent://risk") == "agent://risk"
    with pytest.raises(InvalidSender, match="may mint for"):
        policy.check("alice")
