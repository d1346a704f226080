"""The MACP runtime's own reading of a token: its serde types, as strict as serde_json is.

serde_json takes ``1.0`` and ``-0`` for floats where an integer is read, refuses a number outside the
type, a repeated field and half a surrogate pair; fields that it does not know are skipped unread.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any


class RuntimeRefuses(AssertionError):
    """The runtime can't deserialise this token."""


class _Float(float):
    """A number that serde_json reads as f64."""


def claims_at_runtime(token: str) -> dict[str, Any]:
    """The claims, if the runtime can read them."""
    payload = token.split(".")[1]
    text = urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode("utf-8")
    claims = json.loads(text, object_pairs_hook=_no_repeats, parse_float=_Float, parse_int=_integer)
    for name, expected in {"sub": str, "iss": str, "aud": str, "iat": int, "exp": int}.items():
        if type(claims.get(name)) is not expected:
            raise RuntimeRefuses(f"{name} is {claims.get(name)!r}")
    scopes = claims["macp_scopes"]
    if not isinstance(scopes, dict):
        raise RuntimeRefuses("macp_scopes is no object")
    for name, accepts in _SCOPES.items():
        value = scopes.get(name)
        if value is not None and not accepts(value):
            raise RuntimeRefuses(f"{name} is {value!r}")
    return dict(claims)


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise RuntimeRefuses("duplicate field")
    for name in members:
        _utf8(name)
    return members


def _integer(digits: str) -> int | _Float:
    return _Float(0) if digits == "-0" else int(digits)


def _utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RuntimeRefuses("lone surrogate") from None
    return True


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and _utf8(item) for item in value)


def _is_usize(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**64


_SCOPES: dict[str, Callable[[object], bool]] = {
    "can_start_sessions": _is_bool,
    "can_manage_mode_registry": _is_bool,
    "is_observer": _is_bool,
    "allowed_modes": _is_strings,
    "max_open_sessions": _is_usize,
}
