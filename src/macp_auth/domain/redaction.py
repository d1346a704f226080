"""Redacts untrusted text, from a backend or a plugin, before it is shown.

A backend, or a proxy in front of it, may repeat the credential from a request in an error. The text may
be long and may contain terminal control characters. Every signer error and every finding passes its text
through :func:`shown`.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

LONGEST = 500
"""Maximum length of a shown text in characters."""
REDACTED = "[redacted]"
_SHORTEST = 9
"""A shorter text is not treated as a credential: it could be guessed, and is most likely a common word
such as ``root``."""
_PIECE = 16
"""A word that repeats this many consecutive characters of a credential (or all of a shorter one) is
redacted. Fewer often match a name: a credential chosen by an operator may contain a path's name."""
_MOST = 32  # remembered credentials; a service has two or three, and their predecessors
_MOST_PIECES = 4096  # of a credential; a Kubernetes JWT has 1,000 to 2,000
_WORD = re.compile(r"""[^\s"'<>(){}\[\],]+""")
_ESCAPE = re.compile(r"\\u([0-9a-f]{4})|(?:\\x|%)([0-9a-f]{2})", re.IGNORECASE)
_BASE64 = re.compile(r"[\w+/-]+", re.ASCII)
_HEXADECIMAL = re.compile(r"(?:[0-9a-f]{2}){8,}", re.IGNORECASE)


class _Traces(NamedTuple):
    """The patterns to search for."""

    pieces: frozenset[str]
    short: frozenset[str]
    """Credentials shorter than a piece."""
    phrases: re.Pattern[str]
    """Credentials of more than one word."""

    def are_in(self, word: str) -> bool:
        if not (self.pieces or self.short):
            return False
        return any(
            any(text in view for text in self.short)
            or any(view[at : at + _PIECE] in self.pieces for at in range(len(view) - _PIECE + 1))
            for view in map(str.casefold, _readings(word))
        )


class _Credentials:
    """The credentials that this process has sent or may send."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: dict[str, None] = {}  # in the order of their last use
        self._traces: _Traces | None = None  # built on first use, which may never come

    def add(self, text: str) -> None:
        text = text.strip()
        if len(text) < _SHORTEST or len(text.splitlines()) > 1 or _is_document(text):
            return
        with self._lock:
            if text in self._texts:
                del self._texts[text]  # move it to the end: it is in use
                self._texts[text] = None
                return
            if len(self._texts) == _MOST:
                del self._texts[next(iter(self._texts))]
            self._texts[text] = None
            self._traces = None
        _redacted.cache_clear()

    def traces(self) -> _Traces:
        traces = self._traces
        if traces is None:
            with self._lock:
                traces = self._traces = _traces_of(list(self._texts))
        return traces


_credentials = _Credentials()


def conceal(credential: str) -> None:
    """Redact ``credential`` from every text that this process shows from now on.

    If it contains spaces or brackets, the whole and each long enough word is redacted. A document, such
    as a JWK, is not treated as a credential: its public parts must still be shown.
    """
    _credentials.add(credential)


def shown(text: str, longest: int = LONGEST) -> str:
    """Return ``text`` as one line of at most ``longest`` printable characters, without credentials."""
    words = text[: 2 * longest]  # the rest would only take time
    plain = _redacted(words)
    if not plain.isprintable():
        plain = "".join(each if each.isprintable() else _escaped(each) for each in plain)
    return plain if len(plain) <= longest and len(text) == len(words) else f"{plain[: longest - 3]}..."


@lru_cache(maxsize=128)
def _redacted(text: str) -> str:
    """Redact each word that repeats a credential. Cached: a failing backend repeats its errors."""
    traces = _credentials.traces()
    return _WORD.sub(
        lambda word: REDACTED if traces.are_in(word[0]) else word[0], traces.phrases.sub(REDACTED, text)
    )


def _is_document(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict | list)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False


def _traces_of(texts: list[str]) -> _Traces:
    parts = {
        part.casefold() for text in texts for part in (text, *_WORD.findall(text)) if len(part) >= _SHORTEST
    }
    phrases = sorted((text for text in texts if not _WORD.fullmatch(text)), key=len, reverse=True)
    return _Traces(
        pieces=frozenset(piece for part in parts for piece in _pieces(part)),
        short=frozenset(part for part in parts if len(part) < _PIECE),
        phrases=re.compile("|".join(map(re.escape, phrases)) or "(?!)", re.IGNORECASE),
    )


def _pieces(text: str) -> Iterator[str]:
    step = 1 + len(text) // _MOST_PIECES
    return (text[at : at + _PIECE] for at in range(0, len(text) - _PIECE + 1, step))


def _readings(word: str) -> Iterator[str]:
    """Yield ``word`` and its possible decodings."""
    if len(word) < _SHORTEST:
        return
    plain = {word, html.unescape(word), _ESCAPE.sub(_character, word)}
    yield from plain
    for each in plain:
        for digits in _HEXADECIMAL.findall(each):
            yield bytes.fromhex(digits).decode("latin-1")
        for run in _BASE64.findall(each):
            for start in range(min(4, len(run))):  # the word may be any part of an encoded text
                yield _from_base64(run[start:])


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1] or escape[2], 16))


def _from_base64(text: str) -> str:
    whole = text[: len(text) // 4 * 4].replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(whole).decode("latin-1")
    except binascii.Error:
        return ""


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
