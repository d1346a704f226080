"""Who got tokens, from audit lines: the question after a key was compromised."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from macp_auth.entrypoints.audit.line import timestamp


class Question(Struct, frozen=True, kw_only=True):
    """Which tokens are asked for; what is None does not narrow it."""

    kid: str | None = None
    sender: str | None = None
    since: float | None = None
    """Seconds since the epoch; what was minted in that very millisecond counts."""
    until: float | None = None
    """The same."""


class Identity(Struct, kw_only=True):
    """The tokens of one sender. One that was cut in the log ends in an ellipsis, and may be several."""

    sender: str
    tokens: int
    first: str
    """When the first was minted: ISO 8601, UTC, to the millisecond."""
    last: str
    exp: int
    """When the last of them to expire does, in seconds since the epoch."""


class Report(Struct, frozen=True, kw_only=True):
    """The answer, and what it may lack."""

    identities: list[Identity]
    """The one whose tokens live longest is first."""
    lost: int
    """Lines that the service could not write, since the beginning of the time asked for."""
    unreadable: int
    """Lines that are not JSON."""


class _Line(Struct):
    """What is read of a line. Those of the service's other log may stand between; their events differ."""

    event: object = None
    time: object = None
    sender: object = None
    kid: object = None
    exp: object = None
    lines: object = None
    cut: object = None


def report(lines: Iterable[bytes], question: Question) -> Report:
    """Read the ``lines`` of an audit log, in any order, and answer."""
    since = "" if question.since is None else timestamp(question.since)
    until = "~" if question.until is None else timestamp(question.until)  # after every digit
    found: dict[str, Identity] = {}
    lost = unreadable = 0
    for text in lines:
        if text.isspace():
            continue
        try:
            line = _decode(text)
        except msgspec.DecodeError:
            unreadable += 1
            continue
        match line:
            case _Line(event="minted", time=str(at), sender=str(sender), exp=int(exp)):
                whole = not (isinstance(line.cut, list) and "sender" in line.cut)
                if (
                    since <= at <= until
                    and question.kid in (None, line.kid)
                    and (question.sender is None or _is_of(question.sender, sender, whole=whole))
                ):
                    _count(found, sender if whole else sender + "…", at, exp)
            case _Line(event="lost", time=str(at), lines=int(count)) if at >= since:
                lost += count
    identities = sorted(found.values(), key=lambda identity: (-identity.exp, identity.sender))
    return Report(identities=identities, lost=lost, unreadable=unreadable)


def _is_of(wanted: str, recorded: str, *, whole: bool) -> bool:
    return wanted == recorded if whole else wanted.startswith(recorded)


def _count(found: dict[str, Identity], sender: str, at: str, exp: int) -> None:
    if (identity := found.get(sender)) is None:
        found[sender] = Identity(sender=sender, tokens=1, first=at, last=at, exp=exp)
    else:
        identity.tokens += 1
        identity.first = min(identity.first, at)
        identity.last = max(identity.last, at)
        identity.exp = max(identity.exp, exp)


_decode = msgspec.json.Decoder(_Line).decode
