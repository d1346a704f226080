"""JSON as the MACP runtime reads it, with serde_json.

Python's parser is more lenient. serde_json refuses a byte order mark and NaN; ``1.0`` and ``-0`` are not
integers; and in a value that it reads, rather than skips, a lone surrogate, invalid UTF-8 and a number out
of range are errors.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode
from collections import Counter
from typing import Any, NoReturn

from macp_auth.domain.encoding import base64url

MAX_DEPTH = 127
"""serde_json's limit (``remaining_depth``); what it skips may be of any depth."""
_U64_DIGITS = 20


class Members(dict[str, Any]):
    """The members of an object, the last of each name, and the names that are repeated."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs) if len(self) < len(pairs) else {}
        self.repeated = {name for name, count in counts.items() if count > 1}


def parse(data: bytes) -> Any:
    """Return the document; invalid UTF-8 becomes lone surrogates.

    Raises:
        ValueError: serde_json refuses the document, also where it only skips values.
    """
    text = data.decode("utf-8", "surrogateescape")
    try:
        return json.loads(text, object_pairs_hook=Members, parse_int=_integer, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def readable(value: object, depth: int = MAX_DEPTH) -> bool:
    """Whether serde_json can read all of ``value``, not only skip it."""
    if isinstance(value, str):
        return is_text(value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return depth > 0 and all(is_text(name) and readable(item, depth - 1) for name, item in value.items())
    if isinstance(value, list):
        return depth > 0 and all(readable(item, depth - 1) for item in value)
    return True


def is_text(value: object) -> bool:
    """Whether ``value`` is a string that UTF-8 can encode."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def is_u64(value: object) -> bool:
    """Whether serde reads ``value`` as an unsigned integer of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64


def decode_base64url(text: str) -> bytes:
    """Return the octets, as strictly as the runtime: no padding, no spare bits, no other character.

    Raises:
        ValueError: the text is not in this form.
    """
    octets = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if base64url(octets) != text:
        raise ValueError("not base64url")
    return octets


def _integer(digits: str) -> int | float:
    return float(digits) if digits == "-0" or len(digits) > _U64_DIGITS else int(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
