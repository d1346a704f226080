"""Detects and escapes invisible characters."""

from __future__ import annotations

import re

# Blank characters that str.isprintable() accepts: the letters and marks of Unicode's
# Default_Ignorable_Code_Point (DerivedCoreProperties.txt), and the blank Braille cell.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_NOT_PLAIN = re.compile("[^ -~]")


def is_visible(text: str) -> bool:
    """Return whether each character of ``text`` is visible or a space.

    Not visible are control and formatting characters (including bidirectional ones), separators other
    than the space, private-use and unassigned code points, and lone surrogates.
    """
    return text.isprintable() and (text.isascii() or not _BLANK.search(text))


def escaped(text: str) -> str:
    r"""Return ``text`` with each invisible character as ``\uXXXX``, in surrogate pairs beyond U+FFFF.

    JSON text keeps its value if it contains no line ends.
    """
    return text if is_visible(text) else _NOT_PLAIN.sub(_escape, text)


def escaped_lines(text: str) -> str:
    """Return ``text`` with invisible characters escaped, except line ends."""
    return "\n".join(map(escaped, text.split("\n")))


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if is_visible(character):
        return character
    digits = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{digits[at : at + 4]}" for at in range(0, len(digits), 4))
