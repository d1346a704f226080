"""Requests within the limits that cost as much as they can, and what a process spends on one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from macp_auth.domain.scopes import KNOWN_SCOPES
from macp_auth.entrypoints.http.body import MAX_BODY_BYTES
from tools.support.processes import JSON_HEADERS, mint_bytes
from tools.support.wire import request_bytes

BOUND_SECONDS = 0.005
"""What a request may cost beyond its signature. An ES256 signature is a hundredth of it."""
PATTERN = "agent://[a-z0-9-]+-[a-z0-9-]+"
"""A sender pattern as people write it. A backtracking engine needs 21 s for one of :data:`BODIES`."""
_HEADER_ROOM = 15_800  # what one header may have within the limit of 16 KiB for all


def cpu_seconds(pid: int) -> float:
    """What the threads of a process have spent so far, to the nanosecond (proc(5), schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _filled(unit: str, before: str = '{"sender":"agent://a-b","x":[', after: str = "]}") -> bytes:
    """As many of ``unit`` as a body holds."""
    room = MAX_BODY_BYTES - len(before.encode()) - len(after.encode())
    return (before + (unit * (room // len(unit.encode()))).rstrip(",") + after).encode()


def _scopes(names: Iterator[str], size: int) -> bytes:
    members: dict[str, int] = {}
    while size > 0:
        members[name := next(names)] = 1
        size -= len(f'"{name}":1,')
    return b'{"sender":"agent://a-b","scopes":%s}' % json.dumps(members, separators=(",", ":")).encode()


def _shuffled(name: str) -> Iterator[str]:
    chance, letters = random.Random(name), list(name)  # noqa: S311 - the same names in every run
    while True:
        chance.shuffle(letters)
        yield "".join(letters)


def _numbered(template: str) -> Iterator[str]:
    yield from map(template.format, range(MAX_BODY_BYTES))


BODIES: dict[str, bytes] = {
    "sender-for-the-pattern": b'{"sender":"agent://%s!"}' % (b"a-" * 30_000),
    "sender-for-the-pattern-in-the-limit": b'{"sender":"agent://%s"}' % (b"a-" * 500 + b"!"),
    "sender-of-spaces": _filled(" a", '{"sender":"a', '"}'),
    "sender-of-escapes": _filled("\\u0061", '{"sender":"', '"}'),
    "sender-of-wide-characters": _filled("é", '{"sender":"', '"}'),
    "sender-of-brackets": _filled("[", '{"sender":"', '"}'),
    "objects": _filled("{},"),
    "objects-with-members": _filled('{"a":1},'),
    "arrays": _filled("[],"),
    "integers": _filled("1,"),
    "long-integers": _filled("9" * 308 + ","),
    "floats": _filled("1.5,"),
    "strings": _filled('"",'),
    "strings-of-brackets": _filled('"[",'),
    "strings-side-by-side": _filled('""', '{"sender":"a","x":[' + "[" * 40),
    "escapes": _filled("\\n", '{"sender":"a","y":' + "[" * 40 + "]" * 40 + ',"x":"', '"}'),
    "escaped-quotes": _filled('\\"', '{"sender":"a","y":' + "[" * 40 + "]" * 40 + ',"x":"', '"}'),
    "open-brackets": b"[" * MAX_BODY_BYTES,
    "pairs-of-brackets": b"[]" * (MAX_BODY_BYTES // 2),
    "one-integer": _filled("9", '{"sender":"a","ttl_seconds":', "}"),
    "one-float": _filled("0", '{"sender":"a","ttl_seconds":0.', "7e99999}"),
    "white-space": _filled(" ", '{"sender":"a"', "}"),
    "no-utf-8": b'{"sender":"' + b"\xff" * 100_000 + b'"}',
    "control-characters": b"\0" * MAX_BODY_BYTES,
    "members": b'{"sender":"a",%s}' % b",".join(b'"%x":0' % number for number in range(11_000)),
    "modes": _filled('"",', '{"sender":"agent://a-b","scopes":{"allowed_modes":[', "]}}"),
    "modes-in-the-limit": b'{"sender":"agent://a-b","scopes":{"allowed_modes":[%s]}}'
    % b",".join([b'""'] * 2_000),
    "scope-of-arrays": _filled("[],", '{"sender":"agent://a-b","scopes":{"x":[', "]}}"),
    "scope-of-objects": b'{"sender":"agent://a-b","scopes":{"x":[%s]}}' % b",".join([b"{}"] * 2_000),
    "scope-names": _scopes(_numbered("{:x}"), 90_000),
    "scope-names-in-the-limit": _scopes(_numbered("{:x}"), 8_000),
    "scope-names-of-the-length-of-a-known-one": _scopes(_numbered("is_{:09}"), 8_000),
    **{f"scope-names-near-{name}": _scopes(_shuffled(name), 12_000) for name in KNOWN_SCOPES},
    **{f"scope-names-in-the-limit-near-{name}": _scopes(_shuffled(name), 6_000) for name in KNOWN_SCOPES},
}
"""Bodies of up to 100 KiB, each the worst of its kind."""


def chunked(body: bytes, size: int) -> bytes:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return (
        request_bytes("POST", "/tokens", [*JSON_HEADERS, ("Transfer-Encoding", "chunked")])
        + coded
        + b"0\r\n\r\n"
    )


def _typed(content_type: str) -> bytes:
    headers = [("Host", "localhost"), ("Content-Type", content_type), ("Content-Length", "2")]
    return request_bytes("POST", "/tokens", headers, b"{}")


def _get(path: str, *headers: tuple[str, str]) -> bytes:
    return request_bytes("GET", path, [("Host", "localhost"), *headers])


def _long(unit: str) -> str:
    return unit * (_HEADER_ROOM // len(unit))


REQUESTS: dict[str, bytes] = {
    "chunks-of-one-byte": chunked(_filled("y", '{"sender":"a","x":"', '"}'), 1),
    "chunks-of-32-bytes": chunked(_filled("y", '{"sender":"a","x":"', '"}'), 32),
    "empty-lines-in-a-chunk": chunked(b"\r\n\r\n" * (MAX_BODY_BYTES // 4), MAX_BODY_BYTES),
    "trailers": chunked(b"{}", 2).removesuffix(b"\r\n") + b"a:b\r\n" * (MAX_BODY_BYTES // 5),
    "one-trailer": chunked(b"{}", 2).removesuffix(b"\r\n") + b"a:%s\r\n\r\n" % (b"b" * MAX_BODY_BYTES),
    "many-headers": mint_bytes(*[(f"X-{number}", "y" * 140) for number in range(90)]),
    "content-type-of-spaces": _typed("application/json" + _long(" ") + "x"),
    "content-type-of-parameters": _typed("application/json" + _long(";a=b") + ","),
    "content-type-of-spaced-parameters": _typed("application/json" + _long(" ;a=b ") + ","),
    "content-type-that-is-quoted": _typed('application/json;a="' + _long("\\a")),
    "content-type-of-one-token": _typed("application/json;" + _long("a")),
    "host": request_bytes("POST", "/tokens", [("Host", _long("x") + "<")]),
    "traceparent": mint_bytes(("traceparent", _long("0"))),
    "request-id": mint_bytes(("x-request-id", _long("a"))),
    "accept": mint_bytes(("Accept", _long("a/b;q=0.1,"))),
    "cookie": mint_bytes(("Cookie", _long("a=b;"))),
    "expect": mint_bytes(("Expect", _long("1"))),
    "upgrade": mint_bytes(("Connection", "Upgrade"), ("Upgrade", _long("a"))),
    "query": _get("/tokens?" + _long("a=b&")),
    "path": _get("/" + _long("%41")),
    "etags": _get("/.well-known/jwks.json", ("If-None-Match", _long(","))),
    "spaced-etags": _get("/.well-known/jwks.json", ("If-None-Match", _long(" ,"))),
    "many-etags": _get("/.well-known/jwks.json", *[("If-None-Match", "a,b,c," * 24)] * 90),
}
"""Whole requests, with headers of up to 16 KiB."""
