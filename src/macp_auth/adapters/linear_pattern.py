"""Regular expressions that match in linear time.

RE2 (https://github.com/google/re2) has no look-around and no backreferences, so it never backtracks:
``agent://[a-z0-9-]+-[a-z0-9-]+`` takes Python's ``re`` 21 s for a text of 60 KB, and this 0.1 ms for
one of 1,024 characters.
"""

from __future__ import annotations

from functools import lru_cache

import re2

MAX_MEMORY_BYTES = 1024 * 1024
"""Memory for a pattern and its states. RE2 recomputes states that it does not keep."""
MAX_PROGRAM_SIZE = 600
"""Instructions. RE2's worst case is their number times the length of the text: at 600, 7 ms for 1,024
characters, with a pattern made for it. ``agent://[a-z0-9-]{1,64}/[a-z0-9-]{1,64}`` has 530."""
_REMEMBERED = 256  # results; RE2's binding takes 5 us for one, a sixth of an ES256 signature


class InvalidPattern(ValueError):
    """The pattern is not in RE2's syntax or is too large. The text does not show the pattern."""


class LinearPattern:
    """A pattern that matches whole texts. Can be pickled for a worker process.

    Args:
        pattern: in RE2's syntax.

    Raises:
        InvalidPattern: the pattern is invalid or too large.
    """

    def __init__(self, pattern: str) -> None:
        options = re2.Options()
        options.max_mem = MAX_MEMORY_BYTES
        options.never_capture = True
        options.log_errors = False  # it would write the pattern to standard error
        try:
            compiled = re2.compile(pattern, options)
        except re2.error:
            raise InvalidPattern("not in RE2's syntax, or too large") from None
        if compiled.programsize > MAX_PROGRAM_SIZE:
            raise InvalidPattern(f"over {MAX_PROGRAM_SIZE} instructions")
        self._pattern = pattern
        self._matches = lru_cache(_REMEMBERED)(lambda text: compiled.fullmatch(text) is not None)

    def matches(self, text: str) -> bool:
        """Whether the whole of ``text`` matches."""
        return self._matches(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinearPattern) and self._pattern == other._pattern

    def __hash__(self) -> int:
        return hash(self._pattern)

    def __reduce__(self) -> tuple[type[LinearPattern], tuple[str]]:
        return LinearPattern, (self._pattern,)
