"""Reads the body of a request: which are read at all, and up to which size."""

from __future__ import annotations

import re
from collections.abc import Iterable

from litestar.types import Receive

from macp_auth.entrypoints.http.errors import HTTPRefusal

MAX_BODY_BYTES = 100 * 1024
"""The reference service's limit."""

_TOKEN = rb"[\w!#$%&'*+.^`|~-]+"
_PARAMETER = rb'[ \t]*;[ \t]*(%s)=(%s|"(?:[^"\\]|\\.)*")' % (_TOKEN, _TOKEN)
_JSON = re.compile(rb"application/json((?:%s)*)[ \t]*" % _PARAMETER, re.IGNORECASE)  # RFC 9110, section 8.3.1
_PLAIN = frozenset({b"", b"identity"})
_UTF_8 = frozenset({b"utf-8", b'"utf-8"', b"utf8", b'"utf8"'})  # its alias: encoding.spec.whatwg.org


def check_headers(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a body that is too long, encoded, or not JSON, before it is read.

    Raises:
        HTTPRefusal: 413 or 415.
    """
    first: dict[bytes, bytes] = {}
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in _PLAIN:
            raise HTTPRefusal(415, "content-encoding is not supported; send the body as it is")
        first.setdefault(name, value)
    content_type = first.get(b"content-type")
    content_length = first.get(b"content-length")

    # The server's parser has checked that the length is digits.
    if content_length is not None and int(content_length) > MAX_BODY_BYTES:
        raise _too_large()
    if content_type is None:
        if b"transfer-encoding" in first or content_length not in (None, b"0"):
            raise _not_json()
        # Without a body there is no type to name. The better answer is that the sender is missing.
    else:
        _check_content_type(content_type)


async def read_body(receive: Receive) -> bytes:
    """Return the whole body.

    Raises:
        HTTPRefusal: 413 as soon as it is too long; 400 if the connection ended.
    """
    parts: list[bytes] = []  # joined once: adding each to the others would copy them every time
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise HTTPRefusal(400, "the request was cut off")
        parts.append(message["body"])
        size += len(message["body"])
        if size > MAX_BODY_BYTES:
            raise _too_large()
        if not message["more_body"]:
            return b"".join(parts)


def _check_content_type(content_type: bytes) -> None:
    """Refuse what is not JSON, or not in UTF-8 (RFC 8259, section 8.1)."""
    if content_type == b"application/json":  # the usual case
        return
    if not (match := _JSON.fullmatch(content_type)):
        raise _not_json()
    parameters = re.findall(_PARAMETER, match[1])
    if not all(value.lower() in _UTF_8 for name, value in parameters if name.lower() == b"charset"):
        raise HTTPRefusal(415, "the charset of application/json must be utf-8")


def _too_large() -> HTTPRefusal:
    return HTTPRefusal(413, f"body is over {MAX_BODY_BYTES} bytes")


def _not_json() -> HTTPRefusal:
    return HTTPRefusal(415, "content-type must be application/json")
