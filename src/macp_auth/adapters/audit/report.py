"""Who got tokens, from audit lines: the question after a key was compromised."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from macp_auth.adapters.audit.line import SENDER, timestamp


class Question(Struct, frozen=True, kw_only=True):
    """Which tokens are asked for; what is None does not narrow it."""

    kid: str | None = None
    sender: str | None = None
    since: float | None = None
    """Seconds since the epoch; what was minted in that very millisecond counts."""
    until: float | None = None
    """The same."""


class Identity(Struct, kw_only=True):
    """The tokens of one sender. One that was truncated ends in an ellipsis, and may be several."""

    sender: str
    tokens: int
    first: str
    """When the first was minted: ISO 8601, UTC, to the millisecond."""
    last: str
    exp: int
    """When the last of them to expire does, in seconds since the epoch."""


class Log(Struct, frozen=True):
    """One file of an audit log."""

    name: str
    lines: Iterable[bytes]
    """May raise what reading a compressed file does: OSError, EOFError, zlib.error."""


class Fault(Struct, frozen=True):
    """Why the tokens of a file may not all be in the answer."""

    file: str
    text: str


class Report(Struct, frozen=True, kw_only=True):
    """The answer, and what it may lack."""

    identities: list[Identity]
    """The one whose tokens live longest is first."""
    dropped: int
    """Lines of tokens that the service could not write, if it may have been in the time asked for."""
    faults: list[Fault]


class _Line(Struct):
    """What is read of a line. Those of the service's other log may stand between; their events differ."""

    event: object = None
    time: object = None
    sender: object = None
    kid: object = None
    exp: object = None
    lines: object = None
    since: object = None
    truncated: object = None


def report(logs: Iterable[Log], question: Question) -> Report:
    """Read the lines of ``logs``, in any order, as far as they can be read, and answer."""
    tally = _Tally(question)
    faults = [Fault(log.name, text) for log in logs for text in _read(log.lines, tally)]
    identities = sorted(tally.found.values(), key=lambda identity: (-identity.exp, identity.sender))
    return Report(identities=identities, dropped=tally.dropped, faults=faults)


def _read(lines: Iterable[bytes], tally: _Tally) -> Iterator[str]:
    """Take in one file, and say what is wrong with it."""
    number = unreadable = first = audit_lines = 0
    try:
        for number, text in enumerate(lines, 1):
            if text.isspace():
                continue
            try:
                line = _decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                unreadable += 1
                first = first or number
            else:
                audit_lines += tally.takes(line)
    except (OSError, EOFError, zlib.error) as error:
        yield f"it can't be read beyond line {number}: {error}"
    if unreadable:
        yield f"lines that can't be read: {unreadable}; the first is line {first}"
    if not audit_lines:
        yield "there is no audit line in it; is it an audit log?"


class _Tally:
    """The answer, while lines come in."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._since = "" if question.since is None else timestamp(question.since)
        self._until = "~" if question.until is None else timestamp(question.until)  # after every digit
        self.found: dict[str, Identity] = {}
        self.dropped = 0

    def takes(self, line: _Line) -> bool:
        """Count what ``line`` tells, and say whether it is one of an audit log."""
        match line:
            case _Line(event="minted", time=str(at), sender=str(sender), exp=int(exp)):
                whole = not (isinstance(line.truncated, list) and SENDER in line.truncated)
                if (
                    self._since <= at <= self._until
                    and self._question.kid in (None, line.kid)
                    and (self._question.sender is None or _is_of(self._question.sender, sender, whole=whole))
                ):
                    _count(self.found, sender if whole else sender + "…", at, exp)
            case _Line(event="dropped", time=str(at), since=str(since), lines=int(count)):
                self.dropped += count if at >= self._since and since <= self._until else 0
            case _Line(event="refused" | "refused-summary", time=str()):
                pass  # no token was minted, so none is missing
            case _:
                return False
        return True


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
