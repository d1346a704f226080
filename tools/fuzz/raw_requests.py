"""Bytes that are nearly requests: wrong in a place or two, several in a row, in any split."""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec import Struct

PATH = b"/tokens"
BODY = b'{"sender":"agent://risk"}'
_METHODS = [
    *[b"POST"] * 30,
    *[b"GET"] * 10,
    *(b"HEAD", b"OPTIONS", b"PUT", b"CONNECT", b"PRI", b"SOURCE", b"M-SEARCH", b"post"),
]
_OTHER_PATHS = [
    *(b"/healthz", b"/readyz", b"/.well-known/jwks.json", b"/", b"*", b"//", b"/tokens?x", b"/tokens#x"),
    *(b"/%74okens", b"http://a/tokens", b"a:1", b"/" + b"a" * 9000, b"/\xff", b"", b"/%", b"/?%zz", b"/:a@"),
]
_VERSIONS = [
    *[b"HTTP/1.1"] * 90,
    *(b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"RTSP/1.0", b"RTSP/1.1", b"ICE/1.0"),
    *(b"HTTP/1.", b""),
]
_HEADERS = [
    *(b"Expect: 100-continue", b"Expect: 100-Continue", b"Expect: x", b"TE: trailers", b"Trailer: X"),
    *(b"Connection: close", b"Connection: upgrade", b"Connection: keep-alive", b"Connection: upgrade, close"),
    *(b"Upgrade: h2c", b"Upgrade: websocket", b"Upgrade:"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity"),
    *(b"Transfer-Encoding: ", b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: -1"),
    *(b"Content-Length: 99999999999999999999", b"Content-Length: 102401", b"Content-Length:"),
    *(b"Content-Type: text/plain", b"Content-Type: application/json", b"Content-Type: application/json;"),
    *(b"Content-Encoding: gzip", b"Content-Encoding: identity", b"Host: b", b"Host:", b"Host: ["),
    *(b"Origin: null", b"Sec-Fetch-Site: same-origin", b"X-Request-Id: \xff", b"X-Request-Id: a"),
    *(b"traceparent: 00-a-b-c", b"If-None-Match: *", b"If-None-Match: \x80"),
    *(b"Accept: text/plain; version=x", b"X: " + b"a" * 17000, b"X" * 300 + b": a", b": a", b"X", b" X: a"),
    *(b"X : a", b"X:\xe9\xff", b"X: \x00", b"X: \r", b"X: a\nY: b", b"\r"),
]
_CHUNKS = [
    *(b"0\r\n\r\n", b"5\r\nhello\r\n", b"zz\r\n", b"-1\r\n", b"ffffffffffffffff1\r\n", b"2\r\n{}}}\r\n"),
    *(b"0\r\nHost: b\r\n\r\n", b"0\r\nX\r\n\r\n", b"2;a=b\r\n{}\r\n", b"2;\x00\r\n{}\r\n", b"0\r\n", b"\r\n"),
    *(b"1", b"2\n{}\n", b"19\r\n" + BODY + b"\r\n", b"19\r\n" + BODY + b"\r\n0\r\n\r\n"),
    b"1000\r\n" + b" " * 4096 + b"\r\n",
]
_BYTES = [
    *(b"\r", b"\n", b"\r\n", b"\x00", b" ", b"\t", b":", b"\x7f", b"\x80", b"\xff", b"0", b"G"),
    b"\r\n\r\n",
]


class Script(Struct, frozen=True):
    """What a client does: send each part, and then end in its way."""

    parts: Sequence[bytes]
    ending: str
    """``half-close``, ``close`` or ``reset``."""


def script(rng: random.Random, path: bytes = PATH) -> Script:
    """Return a client of some kind, who mostly asks for ``path``."""
    raw = b"".join(_request(rng, path) for _ in range(rng.choice([1, 1, 1, 2, 3, 8])))
    for _ in range(rng.choice([0, 0, 0, 1, 1, 3])):
        raw = _spoiled(rng, raw)
    return Script(_split(rng, raw), rng.choice(["half-close"] * 6 + ["close", "reset"]))


def _request(rng: random.Random, path: bytes) -> bytes:
    path = rng.choice(_OTHER_PATHS) if rng.random() < 0.3 else path
    line = rng.choice([b" "] * 50 + [b"  ", b"\t"]).join([rng.choice(_METHODS), path, rng.choice(_VERSIONS)])
    headers = [b"Host: localhost", b"Content-Type: application/json"]
    body = BODY
    match rng.randrange(6):
        case 0:
            headers.append(b"Transfer-Encoding: chunked")
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
        case 1:
            headers.append(b"Transfer-Encoding: chunked")
            body = rng.choice([b"", b"5\r\nhello\r\n"]) + b"".join(
                rng.choices(_CHUNKS, k=rng.randrange(1, 5))
            )
        case 2:
            body = b" " * rng.choice([0, 1, 5000, 70_000, 102_400, 102_401])
            headers.append(b"Content-Length: %d" % len(body))
        case _:
            headers.append(b"Content-Length: %d" % len(body))
    headers += rng.choices(_HEADERS, k=rng.choice([0, 0, 0, 1, 1, 3]))
    if rng.random() < 0.2:
        headers.append(b"Expect: 100-continue")
    if rng.random() < 0.1:
        headers.pop(rng.randrange(len(headers)))
    if rng.random() < 0.2:
        rng.shuffle(headers)
    if rng.random() < 0.01:
        headers += [b"X-%d: a" % number for number in range(rng.choice([97, 150]))]
    return b"\r\n".join([line, *headers, b"", b""]) + body


def _spoiled(rng: random.Random, raw: bytes) -> bytes:
    at = rng.randrange(len(raw) + 1)
    match rng.randrange(5):
        case 0:
            return raw[:at]
        case 1:
            return raw[:at] + rng.choice(_BYTES) + raw[at:]
        case 2:
            return raw[:at] + raw[at + rng.randrange(1, 20) :]
        case 3:
            return raw[:at] + rng.randbytes(rng.randrange(1, 9)) + raw[at + 1 :]
        case _:
            return raw[:at] + raw[max(0, at - 60) : at] + raw[at:]


def _split(rng: random.Random, raw: bytes) -> list[bytes]:
    if rng.random() < 0.5:
        return [raw]
    seams = sorted(rng.randrange(len(raw) + 1) for _ in range(rng.randrange(1, 6)))
    # Where it hurts: within an empty line, and right behind it.
    if (found := raw.find(b"\r\n\r\n")) >= 0 and rng.random() < 0.5:
        seams = sorted([*seams, found + rng.randrange(1, 5)])
    return [raw[start:end] for start, end in zip([0, *seams], [*seams, len(raw)], strict=True) if start < end]
