"""Reads the files of an audit log line by line, as far as they can be read."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

READ_ERRORS = (OSError, EOFError, zlib.error)
"""What reading a file, compressed or not, may raise."""
_START = b'{"time":"'
"""How each line of the log begins."""
_MAX_SEARCHED_BYTES = 16384
"""A line is at most 4096 bytes, so this much can be some halves and a whole one."""
_MAX_HALVES = 100
"""Half lines of a file that are kept, to be compared with the lines after them."""
_CHAIN = b',"writer":"'


class Log(Struct, frozen=True):
    """One file of an audit log."""

    name: str
    lines: Iterable[bytes]
    """May raise :data:`READ_ERRORS`."""


class Line(Struct):
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
    writer: object = None
    seq: object = None
    prev: object = msgspec.UNSET
    sha256: object = None


class Read(Struct, frozen=True):
    """One JSON object of a file, or a part of a line that is none."""

    number: int
    """Of the line in the file, from 1."""
    text: bytes
    """Without the line's end."""
    line: Line | None
    """None if it can't be read."""


def read(lines: Iterable[bytes]) -> Iterator[Read]:
    """Yield what is in ``lines``, except for blank ones.

    A process that was killed, or whose disk was full, may leave half a line, and another process may append
    a whole one to it: both are yielded.
    """
    for number, line in enumerate(lines, 1):
        text = line.removesuffix(b"\n")
        if text and not text.isspace():
            yield from _parts(number, text)


def _parts(number: int, text: bytes) -> Iterator[Read]:
    start = 0
    while (line := _decoded(text[start:])) is None:
        # The quotes in a string are escaped, but an object in the scopes may begin like a line. So a line
        # begins where the rest can be read to its end.
        start = text.find(_START, start + 1) if len(text) <= _MAX_SEARCHED_BYTES else -1
        if start == -1:
            yield Read(number, text, None)
            return
    if start:
        yield from _parts(number, text[:start])
    yield Read(number, text[start:], line)


def _decoded(text: bytes) -> Line | None:
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class Unreadable:
    """The parts of a file that can't be read, without half lines that are followed by the whole line.

    A full disk may take half a line. The service then writes the line again.
    """

    def __init__(self) -> None:
        self._halves: list[Read] = []
        self._others = 0
        self._first_other = 0
        self.completed: list[Read] = []
        """The half lines that are followed by the whole line."""

    def add(self, part: Read) -> None:
        """Add what can't be read."""
        if len(self._halves) < _MAX_HALVES and part.text[: len(_START)] == _START[: len(part.text)]:
            self._halves.append(part)
        else:
            self._others += 1
            self._first_other = self._first_other or part.number

    def complete(self, text: bytes) -> None:
        """Remove the half lines of which ``text`` is the whole line."""
        if self._halves:
            begun = [half for half in self._halves if _begins(half.text, text)]
            self.completed += begun
            self._halves = [half for half in self._halves if half not in begun]

    @property
    def count(self) -> int:
        """The number of parts, except for the completed ones."""
        return self._others + len(self._halves)

    @property
    def first(self) -> int:
        """The line of the first of them; 0 if there is none."""
        return min(
            [*([self._first_other] if self._others else []), *(half.number for half in self._halves)],
            default=0,
        )


def _begins(half: bytes, whole: bytes) -> bool:
    # Between the two, the writer may have written others: then the number and the SHA-256 differ.
    if (chain := half.rfind(_CHAIN)) != -1 and (end := half.find(b'"', chain + len(_CHAIN))) != -1:
        return whole.startswith(half[:end])
    return whole.startswith(half)


_decode = msgspec.json.Decoder(Line).decode
