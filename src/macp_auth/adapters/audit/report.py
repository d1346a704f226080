"""Reports from audit lines who got tokens, for example after a key was compromised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from macp_auth.adapters.audit.line import SENDER, timestamp
from macp_auth.adapters.audit.reading import READ_ERRORS, Line, Log, Unreadable, read
from macp_auth.adapters.audit.verification import ChainCheck, Kind

_FALSE_TOTALS = {Kind.MISSING, Kind.CHANGED, Kind.DUPLICATE}
"""What makes a sum of tokens wrong."""


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
    callers: list[str] = []
    """The authenticated callers that got them, sorted."""


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


def report(logs: Iterable[Log], question: Question) -> Report:
    """Return the report of ``logs``, in any order, as far as they can be read."""
    tally = _Tally(question)
    check = ChainCheck()
    faults = [Fault(log.name, text) for log in logs for text in _read(log, tally, check)]
    faults += (
        Fault(found.file, f"line {found.line}: writer {found.writer}: {found.text}")
        for found in check.findings(tally.period)
        if found.kind in _FALSE_TOTALS
    )
    for sender, callers in tally.callers.items():
        tally.found[sender].callers = sorted(callers)
    identities = sorted(tally.found.values(), key=lambda identity: (-identity.exp, identity.sender))
    return Report(identities=identities, dropped=tally.dropped, faults=faults)


def _read(log: Log, tally: _Tally, check: ChainCheck) -> Iterator[str]:
    """Count the lines of one file and yield its faults."""
    check.begin(log.name)
    unreadable = Unreadable()
    number = audit_lines = 0
    try:
        for part in read(log.lines):
            number = part.number
            if part.line is None:
                unreadable.add(part)
            elif tally.takes(part.line):
                audit_lines += 1
                check.takes(part)
                unreadable.complete(part.text)
    except READ_ERRORS as error:
        yield f"cannot read past line {number}: {error}"
    if unreadable.count:
        yield f"unreadable lines: {unreadable.count}; the first is line {unreadable.first}"
    if not audit_lines:
        yield "no audit lines; is it an audit log?"


class _Tally:
    """Collects the report line by line."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._since, self._until = self.period = (
            "" if question.since is None else timestamp(question.since),
            "~" if question.until is None else timestamp(question.until),  # sorts after every digit
        )
        self.found: dict[str, Identity] = {}
        self.callers: dict[str, set[str]] = {}
        """By sender."""
        self.dropped = 0

    def takes(self, line: Line) -> bool:
        """Count ``line``; return whether it is an audit line."""
        match line:
            case Line(event="minted", time=str(at), sender=str(sender), exp=int(exp)):
                whole = not (isinstance(line.truncated, list) and SENDER in line.truncated)
                caller = line.caller if isinstance(line.method, str) else None
                if (
                    self._since <= at <= self._until
                    and self._question.kid in (None, line.kid)
                    and self._question.caller in (None, caller)
                    and (self._question.sender is None or _is_of(self._question.sender, sender, whole=whole))
                ):
                    name = sender if whole else sender + "…"
                    _count(self.found, name, at, exp)
                    if isinstance(caller, str):
                        self.callers.setdefault(name, set()).add(caller)
            case Line(event="dropped", time=str(at), since=str(since), lines=int(count)):
                self.dropped += count if at >= self._since and since <= self._until else 0
            case Line(event="refused" | "refused-summary", time=str()):
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
