"""A body's bytes to a token request: strict JSON (RFC 8259), read once."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from macp_auth.domain.errors import InvalidSender, MalformedJSON
from macp_auth.domain.json_objects import unique_members
from macp_auth.domain.minting import TokenRequest

MAX_DEPTH = 32
"""Nested objects and arrays. Far more than scopes need, far less than any parser's stack."""

_MAX_INTEGER_DIGITS = 309  # of the largest double; of so many, a reader of doubles may see infinity
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


def decode_token_request(body: bytes) -> TokenRequest:
    """Return the request that ``body`` asks for. No body at all asks for nothing.

    Raises:
        MalformedJSON: not one JSON object or array, a duplicate member at any depth, not UTF-8,
            a byte order mark, or nested deeper than :data:`MAX_DEPTH`.
        InvalidSender: an array has no sender.
    """
    document = _decode(body) if body else {}
    if isinstance(document, list):
        raise InvalidSender("sender is required")
    if not isinstance(document, dict):
        raise MalformedJSON
    return TokenRequest(
        sender=document.get("sender"),
        scopes=document.get("scopes", {}),
        ttl_seconds=document.get("ttl_seconds"),
    )


def _decode(body: bytes) -> Any:
    # Counting all brackets is cheap, and no body with so few of them can be too deep.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise MalformedJSON
    try:
        return _decoder.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MalformedJSON from None


def _depth(body: bytes) -> int:
    depth = deepest = 0
    for bracket in re.findall(rb"[\[\]{}]", _STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _MAX_INTEGER_DIGITS else float(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_decoder = json.JSONDecoder(object_pairs_hook=unique_members, parse_int=_integer, parse_constant=_no_constant)
