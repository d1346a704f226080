"""Checks the chains of an audit log. docs/audit.md says what that proves, and what it does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

from msgspec import Struct

from macp_auth.adapters.audit.chain import HEAD_EVENT, digest
from macp_auth.adapters.audit.line import DROPPED, MINTED, REFUSED, REFUSED_SUMMARY
from macp_auth.adapters.audit.reading import READ_ERRORS, Line, Log, Read, Unreadable, read
from macp_auth.domain.worker_state import AuditHead

EVENTS = (MINTED, REFUSED, REFUSED_SUMMARY, DROPPED)
"""The events of audit lines."""
_EVER = ("", "~")  # "~" sorts after every digit


class Kind(StrEnum):
    """What is wrong with a log."""

    MISSING = "missing"
    """Lines are missing between two others, or before the first."""
    CHANGED = "changed"
    """A line is not as it was written."""
    OUT_OF_ORDER = "out-of-order"
    DUPLICATE = "duplicate"
    TRUNCATED = "truncated"
    """Lines are missing at the end: the service log has a later head."""
    NOT_AS_LOGGED = "not-as-logged"
    """A line is not the one that the service log has: the chain was made again."""
    NO_CHAIN = "no-chain"
    """An audit line is in no chain: an earlier version wrote it, or not the service."""
    UNREADABLE = "unreadable"
    """A line, or a part of one, is not JSON."""
    DAMAGED = "damaged"
    """A file can't be read to its end."""
    NO_LINES = "no-lines"
    """A file has no audit lines, or a service log no heads."""


class Finding(Struct, frozen=True, kw_only=True):
    """Something that is wrong."""

    kind: Kind
    file: str
    line: int | None = None
    """The line of the file, from 1; None if it is about the whole file."""
    writer: str | None = None
    """None if it is about no writer."""
    text: str


class Writer(Struct, frozen=True, kw_only=True):
    """The lines of one writer."""

    writer: str
    lines: int
    first: int
    """The number of its first line."""
    last: int
    head: int | None
    """The number of the last line that the service log covers; None if it has no head of the writer."""


class Verification(Struct, frozen=True, kw_only=True):
    """The result of a check."""

    writers: list[Writer]
    """In the order of their ids."""
    findings: list[Finding]
    notes: list[str]
    """What is worth a look, and nothing that is wrong."""


class LoggedHead(Struct, frozen=True):
    """A head, and where it is logged."""

    head: AuditHead
    file: str
    line: int


Heads = Mapping[str, Mapping[int, LoggedHead]]
"""By writer and number."""


class _Run(Struct):
    """Lines of one writer in one file whose numbers follow one another."""

    file: str
    first: int
    first_line: int
    prev: str | None
    """Of the first."""
    last: int = 0
    last_line: int = 0
    sha256: str = ""
    """Of the last."""
    minted_first: str | None = None
    """The time of the first token; None if there is none."""
    minted_last: str | None = None


class ChainCheck:
    """Collects the lines of files in any order, then says what is wrong.

    Args:
        heads: the heads that the service log has.
    """

    def __init__(self, heads: Heads | None = None) -> None:
        self._heads = heads or {}
        self._runs: dict[str, list[_Run]] = {}
        self._open: dict[str, _Run] = {}
        self._file = ""
        self._found: list[Finding] = []
        self._lines: dict[str, int] = {}

    def begin(self, file: str) -> None:
        """Begin the lines of ``file``."""
        self._file = file
        self._open = {}

    def takes(self, part: Read) -> bool:
        """Check a line of the file; return whether it is in a chain."""
        match part.line:
            case Line(
                event=event, time=str(at), writer=str(writer), seq=int(seq), prev=str() | None as prev
            ) if event in EVENTS and seq > 0:
                run = self._take(part, writer, seq, prev)
                if event == MINTED:
                    run.minted_first = run.minted_first or at
                    run.minted_last = at
                return True
            case _:
                return False

    def _take(self, part: Read, writer: str, seq: int, prev: str | None) -> _Run:
        sha256 = digest(part.text)
        run = self._open.get(writer)
        if run is None or seq != run.last + 1:
            run = self._open[writer] = _Run(self._file, seq, part.number, prev)
            self._runs.setdefault(writer, []).append(run)
        elif prev != run.sha256:
            self._found.append(_changed(writer, run, self._file, part.number))
        run.last, run.last_line, run.sha256 = seq, part.number, sha256
        self._lines[writer] = self._lines.get(writer, 0) + 1
        logged = self._heads.get(writer, {}).get(seq)
        if logged is not None and logged.head.sha256 != sha256:
            text = f"line {seq} is not the one that {logged.file}:{logged.line} has"
            self._found.append(_finding(Kind.NOT_AS_LOGGED, self._file, part.number, writer, text))
        return run

    def findings(self, period: tuple[str, str] = _EVER, *, partial: bool = False) -> list[Finding]:
        """Return what is wrong.

        Args:
            period: only lines of tokens that may be of this period can be missing.
            partial: whether the lines before the first of each writer, and writers without lines, are
                elsewhere.
        """
        found = list(self._found)
        for writer, runs in self._runs.items():
            runs.sort(key=lambda run: run.first)
            found += _between(writer, runs, period, partial=partial)
            found += self._after(writer, runs)
        if not partial:
            found += (
                _absent(writer, heads) for writer, heads in self._heads.items() if writer not in self._runs
            )
        return found

    def _after(self, writer: str, runs: Iterable[_Run]) -> Iterator[Finding]:
        last = max(runs, key=lambda run: run.last)
        logged = _latest(self._heads.get(writer, {}))
        if logged is not None and logged.head.seq > last.last:
            text = (
                f"{_lines(last.last + 1, logged.head.seq)} missing after this one: "
                f"{logged.file}:{logged.line} has the last"
            )
            yield _finding(Kind.TRUNCATED, last.file, last.last_line, writer, text)

    def writers(self) -> list[Writer]:
        """Return the writers with lines."""
        heads = {writer: _latest(self._heads.get(writer, {})) for writer in self._runs}
        return [
            Writer(
                writer=writer,
                lines=self._lines[writer],
                first=min(run.first for run in runs),
                last=max(run.last for run in runs),
                head=None if (logged := heads[writer]) is None else logged.head.seq,
            )
            for writer, runs in sorted(self._runs.items())
        ]


def _between(
    writer: str, runs: Iterable[_Run], period: tuple[str, str], *, partial: bool
) -> Iterator[Finding]:
    """Yield what is wrong between ``runs``, which are sorted."""
    last: _Run | None = None
    earliest = ""  # of a token that is missing here
    for run in runs:
        expected = 1 if last is None else last.last + 1
        latest = run.minted_first or "~"
        if run.first > expected:
            if not (partial and last is None) and earliest <= period[1] and latest >= period[0]:
                text = f"{_lines(expected, run.first - 1)} missing before this one"
                yield _finding(Kind.MISSING, run.file, run.first_line, writer, text)
        elif run.first < expected:
            text = f"{_lines(run.first, min(run.last, expected - 1))} repeated from here"
            yield _finding(Kind.DUPLICATE, run.file, run.first_line, writer, text)
        elif last is None and run.prev is not None:
            text = "line 1 has a line before it"
            yield _finding(Kind.CHANGED, run.file, run.first_line, writer, text)
        elif last is not None and run.prev != last.sha256:
            yield _changed(writer, last, run.file, run.first_line)
        if last is not None and last.file == run.file and last.first_line > run.first_line:
            text = f"line {run.first} stands before line {last.first}"
            yield _finding(Kind.OUT_OF_ORDER, run.file, run.first_line, writer, text)
        earliest = max(earliest, run.minted_last or "")
        if last is None or run.last > last.last:
            last = run


def _changed(writer: str, run: _Run, file: str, line: int) -> Finding:
    """Return that the last line of ``run`` is not the one that was written before ``line``."""
    text = (
        f"line {run.last} was changed: {file}:{line}, which was written after it, has another SHA-256 of it"
    )
    return _finding(Kind.CHANGED, run.file, run.last_line, writer, text)


def _absent(writer: str, heads: Mapping[int, LoggedHead]) -> Finding:
    logged = _latest(heads)
    assert logged is not None, "a writer has a head"  # noqa: S101 - for mypy
    text = f"{_lines(1, logged.head.seq)} missing, in all files"
    return _finding(Kind.MISSING, logged.file, logged.line, writer, text)


def _finding(kind: Kind, file: str, line: int, writer: str, text: str) -> Finding:
    return Finding(kind=kind, file=file, line=line, writer=writer, text=text)


def _latest(heads: Mapping[int, LoggedHead]) -> LoggedHead | None:
    return heads[max(heads)] if heads else None


def _lines(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"


def verify(logs: Iterable[Log], service_logs: Iterable[Log] = (), *, partial: bool = False) -> Verification:
    """Return what is wrong with ``logs``, in any order, as far as they can be read.

    Args:
        logs: the files of the audit log.
        service_logs: the files of the service log, with heads.
        partial: whether older files are left out on purpose.
    """
    findings: list[Finding] = []
    notes: list[str] = []
    heads: dict[str, dict[int, LoggedHead]] = {}
    for log in service_logs:
        findings += _read_heads(log, heads)
    check = ChainCheck(heads)
    for log in logs:
        findings += _read_lines(log, check, notes)
    findings += check.findings(partial=partial)
    return Verification(writers=check.writers(), findings=findings, notes=notes)


def _read_heads(log: Log, heads: dict[str, dict[int, LoggedHead]]) -> Iterator[Finding]:
    number = count = 0
    try:
        for part in read(log.lines):
            number = part.number
            match part.line:
                case Line(event=event, writer=str(writer), seq=int(seq), sha256=str(sha256)) if (
                    event == HEAD_EVENT
                ):
                    count += 1
                    logged = LoggedHead(AuditHead(writer, seq, sha256), log.name, number)
                    before = heads.setdefault(writer, {}).setdefault(seq, logged)
                    if before.head != logged.head:
                        text = f"line {seq} is another one than in {before.file}:{before.line}"
                        yield _finding(Kind.NOT_AS_LOGGED, log.name, number, writer, text)
    except READ_ERRORS as error:
        yield _damaged(log, number, error)
    if not count:
        text = "no heads of a chain; is it the service log?"
        yield Finding(kind=Kind.NO_LINES, file=log.name, text=text)


def _read_lines(log: Log, check: ChainCheck, notes: list[str]) -> Iterator[Finding]:
    check.begin(log.name)
    unreadable = Unreadable()
    number = lines = unchained = first_unchained = 0
    try:
        for part in read(log.lines):
            number = part.number
            if part.line is None:
                unreadable.add(part)
            elif check.takes(part):
                lines += 1
                unreadable.complete(part.text)
            elif part.line.event in EVENTS and isinstance(part.line.time, str):
                unchained += 1
                first_unchained = first_unchained or number
    except READ_ERRORS as error:
        yield _damaged(log, number, error)
    if unreadable.count:
        text = f"unreadable lines: {unreadable.count}; this is the first"
        yield Finding(kind=Kind.UNREADABLE, file=log.name, line=unreadable.first, text=text)
    if unchained:
        text = f"lines without a chain: {unchained}; this is the first"
        yield Finding(kind=Kind.NO_CHAIN, file=log.name, line=first_unchained, text=text)
    if not lines + unchained:
        yield Finding(kind=Kind.NO_LINES, file=log.name, text="no audit lines; is it an audit log?")
    notes += (
        f"{log.name}:{half.number}: half a line; a whole one that begins like it follows"
        for half in unreadable.completed
    )


def _damaged(log: Log, number: int, error: Exception) -> Finding:
    text = f"cannot read past line {number}: {error}"
    return Finding(kind=Kind.DAMAGED, file=log.name, line=number or None, text=text)
