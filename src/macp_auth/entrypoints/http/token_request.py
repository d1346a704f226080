"""Decodes the body of a token request: strict JSON (RFC 8259)."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any, NoReturn

from macp_auth.domain.errors import InvalidSender, MalformedJSON
from macp_auth.domain.json_objects import unique_members
from macp_auth.domain.minting import TokenRequest

MAX_DEPTH = 32
"""Of nested objects and arrays. Far more than scopes need, far less than a parser's stack."""
MAX_MARKS = 8192
"""Of JSON's structural characters and quotes, also within strings. Each value needs some, and time to read.
What fits in a token has fewer: its payload has at most 6,144 bytes."""

_MARKS = b'[]{},:"'
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # of depth, as signed bytes
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_MAX_INTEGER_DIGITS = 309  # of the largest double; a reader of doubles may see more digits as infinity


def decode_token_request(body: bytes) -> TokenRequest:
    """Return the request in ``body``; an empty body is a request without members.

    Raises:
        MalformedJSON: not one JSON object or array, a duplicate member at any depth, not UTF-8,
            a byte order mark, nested deeper than :data:`MAX_DEPTH`, or of more values than
            :data:`MAX_MARKS` leave room for.
        InvalidSender: an array has no sender.
    """
    document = _decode(body) if body else {}
    if isinstance(document, list):
        raise InvalidSender("sender is required")
    if not isinstance(document, dict):
        raise _malformed()
    return TokenRequest(
        sender=document.get("sender"),
        scopes=document.get("scopes", {}),
        ttl_seconds=document.get("ttl_seconds"),
        audience=document.get("audience"),
    )


def _decode(body: bytes) -> Any:
    if len(body) > MAX_MARKS and sum(body.count(mark) for mark in _MARKS) > MAX_MARKS:
        # The depth of all of it would take long to find.
        if _depth(body[:MAX_MARKS]) > MAX_DEPTH:
            raise _malformed()
        raise MalformedJSON("invalid JSON body: too many values")
    # Counting all brackets is cheap, and no body with so few of them can be too deep.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise _malformed()
    try:
        return _decoder.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _malformed() from None


def _malformed() -> MalformedJSON:
    return MalformedJSON("invalid JSON body")


def _depth(body: bytes) -> int:
    # Without escaped backslashes and then escaped quotes, each quote begins or ends a string.
    outside = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    steps = memoryview(outside.translate(_STEPS, _NO_BRACKETS)).cast("b")
    return max(accumulate(steps), default=0)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _MAX_INTEGER_DIGITS else float(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_decoder = json.JSONDecoder(object_pairs_hook=unique_members, parse_int=_integer, parse_constant=_no_constant)
