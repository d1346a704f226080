"""Reports from audit lines who got tokens, for example after a key was compromised."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from macp_auth.adapters.audit.line import SENDER, timestamp


class Question(Struct, frozen=True, kw_only=True):
    """The filter; None matches everything."""

    kid: str | None = None
    sender: str | None = None
    caller: str | None = None
    """The name of an authenticated caller."""
    since: float | None = None
    """Seconds since the epoch, inclusive to the millisecond."""
    until: float | None = None
    """The same."""


class Identity(Struct, kw_only=True, omit_defaults=True):
    """The tokens of one sender. A truncated sender ends in an ellipsis and may stand for several."""

    sender: str
    tokens: int
    first: str
    """Mint time of the first: ISO 8601, UTC, to the millisecond."""
    last: str
    exp: int
    """The latest expiry, in seconds since the epoch."""
    callers: set[str] = set()
    """The authenticated callers that got them."""


class Log(Struct, frozen=True):
    """One file of an audit log."""

    name: str
    lines: Iterable[bytes]
    """May raise the errors of a compressed file: OSError, EOFError, zlib.error."""


class Fault(Struct, frozen=True):
    """A reason why tokens of a file may be missing from the report."""

    file: str
    text: str


class Report(Struct, frozen=True, kw_only=True):
    """The report and its possible gaps."""

    identities: list[Identity]
    """Sorted by latest expiry, last to expire first."""
    dropped: int
    """Number of dropped lines of tokens that may be in the requested period."""
    faults: list[Fault]


class _Line(Struct):
    """The fields read from a line. Lines of the service log may be mixed in; their events differ."""

    event: object = None
    time: object = None
    caller: object = None
    method: object = None
    sender: object = None
    kid: object = None
    exp: object = None
    lines: object = None
    since: object = None
    truncated: object = None


def report(logs: Iterable[Log], question: Question) -> Report:
    """Return the report of ``logs``, in any order, as far as they can be read."""
    tally = _Tally(question)
    faults = [Fault(log.name, text) for log in logs for text in _read(log.lines, tally)]
    identities = sorted(tally.found.values(), key=lambda identity: (-identity.exp, identity.sender))
    return Report(identities=identities, dropped=tally.dropped, faults=faults)


def _read(lines: Iterable[bytes], tally: _Tally) -> Iterator[str]:
    """Count the lines of one file and yield its faults."""
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
        yield f"cannot read past line {number}: {error}"
    if unreadable:
        yield f"unreadable lines: {unreadable}; the first is line {first}"
    if not audit_lines:
        yield "no audit lines; is it an audit log?"


class _Tally:
    """Collects the report line by line."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._since = "" if question.since is None else timestamp(question.since)
        self._until = "~" if question.until is None else timestamp(question.until)  # sorts after every digit
        self.found: dict[str, Identity] = {}
        self.dropped = 0

    def takes(self, line: _Line) -> bool:
        """Count ``line``; return whether it is an audit line."""
        match line:
            case _Line(event="minted", time=str(at), sender=str(sender), exp=int(exp)):
                whole = not (isinstance(line.truncated, list) and SENDER in line.truncated)
                caller = line.caller if isinstance(line.method, str) else None
                if (
                    self._since <= at <= self._until
                    and self._question.kid in (None, line.kid)
                    and self._question.caller in (None, caller)
                    and (self._question.sender is None or _is_of(self._question.sender, sender, whole=whole))
                ):
                    identity = _count(self.found, sender if whole else sender + "…", at, exp)
                    if isinstance(caller, str):
                        identity.callers.add(caller)
            case _Line(event="dropped", time=str(at), since=str(since), lines=int(count)):
                self.dropped += count if at >= self._since and since <= self._until else 0
            case _Line(event="refused" | "refused-summary", time=str()):
                pass  # no token was minted, so none is missing
            case _:
                return False
        return True


def _is_of(wanted: str, recorded: str, *, whole: bool) -> bool:
    return wanted == recorded if whole else wanted.startswith(recorded)


def _count(found: dict[str, Identity], sender: str, at: str, exp: int) -> Identity:
    if (identity := found.get(sender)) is None:
        identity = found[sender] = Identity(sender=sender, tokens=1, first=at, last=at, exp=exp)
    else:
        identity.tokens += 1
        identity.first = min(identity.first, at)
        identity.last = max(identity.last, at)
        identity.exp = max(identity.exp, exp)
    return identity


_decode = msgspec.json.Decoder(_Line).decode
