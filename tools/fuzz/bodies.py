"""Hypothesis strategies for request bodies: nearly right, wrong in one place, and no JSON at all."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from macp_auth.entrypoints.http.body import MAX_BODY_BYTES

KNOWN = [
    "can_start_sessions",
    "can_manage_mode_registry",
    "is_observer",
    "allowed_modes",
    "max_open_sessions",
]
NUMBERS = [
    *("0", "-0", "1", "1.0", "-0.0", "0.5", "2.5", "3599.5", "3600.5", "1e2", "1E+2", "5e-324", "1e-7"),
    *(
        "1e400",
        "-1e400",
        "1e19",
        "18446744073709551615",
        "18446744073709551616",
        "9" * 400,
        "1." + "0" * 400,
        "-5",
    ),
]
ODD_TEXT = [
    "",
    " ",
    "alice",
    "agent://risk",
    "  a ",
    "a\u200b",
    "\u202eb",
    "e\u0301",
    "😀",
    "\x00",
    "\ufeff",
    "\u00a0",
]


class Verbatim(str):
    """JSON text to be written as it is."""

    __slots__ = ()


def _write(value: Any) -> str:
    """Write JSON, with verbatim pieces, and objects given as pairs so that names may repeat."""
    if isinstance(value, Verbatim):
        return str(value)
    if isinstance(value, tuple):
        return "{" + ",".join(f"{_write(name)}:{_write(member)}" for name, member in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_write, value)) + "]"
    return json.dumps(
        value, ensure_ascii=isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value)
    )


texts = (
    st.sampled_from(ODD_TEXT)
    | st.text(max_size=12)
    | st.text(st.characters(exclude_categories=()), max_size=6)
)  # the last with surrogates
numbers = (
    st.sampled_from(NUMBERS).map(Verbatim) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(texts, inner), max_size=3).map(tuple),
    max_leaves=6,
)


def _near(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from(
        [name[:-1], name + "s", name.upper(), name.replace("_", ""), name.replace("_", "-")]
    )


fitting = {
    "can_start_sessions": st.booleans() | st.none(),
    "can_manage_mode_registry": st.booleans() | st.none(),
    "is_observer": st.booleans() | st.none(),
    "allowed_modes": st.lists(texts, max_size=3) | st.none(),
    "max_open_sessions": st.sampled_from(NUMBERS).map(Verbatim) | st.integers(0, 2**64) | st.none(),
}
scope_pairs = (
    st.sampled_from(KNOWN).flatmap(lambda name: st.tuples(st.just(name), fitting[name]))
    | st.sampled_from(KNOWN).flatmap(lambda name: st.tuples(st.just(name), values))
    | st.tuples(st.sampled_from(KNOWN).flatmap(_near), values)
    | st.tuples(texts, values)
)
scopes = st.lists(scope_pairs, max_size=4).map(tuple) | values
senders = st.just("agent://risk") | texts | values
members = (
    st.tuples(st.just("sender"), senders),
    st.tuples(st.just("scopes"), scopes),
    st.tuples(st.just("ttl_seconds"), numbers | values),
    st.tuples(texts, values),
)
requests = st.tuples(st.tuples(st.just("sender"), senders), st.lists(st.one_of(*members), max_size=4)).map(
    lambda parts: (parts[0], *parts[1])
)


@st.composite
def _deep(draw: st.DrawFn) -> str:
    depth = draw(st.integers(1, 200))
    opening, closing = draw(st.sampled_from([("[", "]"), ('{"a":', "}")]))
    return f'{{"sender":"a","scopes":{{"x":{opening * depth}1{closing * depth}}}}}'


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    body = bytearray(_write(draw(requests)).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


bodies: st.SearchStrategy[bytes] = st.one_of(
    requests.map(lambda request: _write(request).encode("utf-8", "surrogatepass")),
    requests.map(lambda request: _write(request).encode("utf-8", "surrogatepass")),
    _damaged(),
    _deep().map(str.encode),
    values.map(lambda value: _write(value).encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
)


@st.composite
def _long(draw: st.DrawFn) -> bytes:
    """One piece again and again, up to the limit of a body: what is quadratic anywhere shows here."""
    opening, closing = draw(
        st.sampled_from(
            [
                ('{"sender":"', '"}'),
                ('{"sender":"a","scopes":{"x":[', "]}}"),
                ('{"sender":"a","scopes":{', "}}"),
                ('{"sender":"a","scopes":{"allowed_modes":[', "]}}"),
                ('{"sender":"a","ttl_seconds":', "}"),
                ('{"sender":"a","x":[', "]}"),
                ("", ""),
            ]
        )
    )
    piece = draw(values.map(_write) | texts | st.sampled_from(['"', "\\", "[", "]", "{", '{"a":', "9", " "]))
    size = draw(st.sampled_from([1_000, 6_000, 8_000, MAX_BODY_BYTES]))
    unit = (piece + draw(st.sampled_from(["", ","]))).encode("utf-8", "surrogatepass") or b" "
    return opening.encode() + unit * (size // len(unit)) + closing.encode()


long_bodies: st.SearchStrategy[bytes] = _long()
content_types = st.sampled_from(
    ["application/json"] * 8 + ["APPLICATION/json; charset=UTF-8", "text/plain", ""]
)
