"""Validates ``scopes``, which becomes the ``macp_scopes`` claim.

The MACP runtime deserialises this claim with serde into five optional fields. It rejects a token
if a field has the wrong type, and uses the default, mostly a permissive one, for an absent or misspelt
field. So types are checked here, and a near miss of a known name is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from macp_auth.domain.errors import InvalidScopes, TokenTooLarge
from macp_auth.domain.key_set import MAX_TOKEN_BYTES

_USIZE_MAX = 2**64 - 1


def _bool(value: object) -> object:
    if isinstance(value, bool):
        return value
    raise InvalidScopes("must be a boolean or null")


def _strings(value: object) -> object:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise InvalidScopes("must be a list of strings or null")


def _usize(value: object) -> object:
    # serde rejects 1.0 and -0.0 for an integer; JavaScript clients write 1 and 0 for both.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _USIZE_MAX:
        return value
    raise InvalidScopes("must be a whole number from 0 to 2^64-1, or null")


KNOWN_SCOPES: Mapping[str, Callable[[object], object]] = {
    "can_start_sessions": _bool,
    "can_manage_mode_registry": _bool,
    "is_observer": _bool,
    "allowed_modes": _strings,
    "max_open_sessions": _usize,
}
"""The fields that the runtime reads, each with the function that checks and returns its value."""

_MAX_PAYLOAD_BYTES = MAX_TOKEN_BYTES * 3 // 4  # base64 makes 4 characters of 3 bytes
_MEMBER_BYTES = 5  # of `"":0,`: a member's size besides its name
# At 0.87 one typo in the shortest name (isobserver) is caught, and allowed_roles does not match
# allowed_modes.
_NEAR = 0.87
# Names of other lengths can't reach _NEAR.
_FOLDED_LENGTHS = range(8, 28)


class _KnownNames:
    """The known names, folded, in the bits of one integer, to compare a name with all of them at once.

    The similarity of two names is twice their longest common subsequence divided by the sum of their
    lengths. Hyyrö's bit-parallel algorithm (2004) finds the subsequence with a few operations per
    character, so no input is slower than another.
    """

    def __init__(self) -> None:
        self._letters: dict[str, int] = {}
        """The positions of each letter, one bit each."""
        self._places: dict[str, tuple[int, int]] = {}
        """The bits and the length of each name."""
        start = 0
        for name in KNOWN_SCOPES:
            folded = _folded(name)
            for position, letter in enumerate(folded, start):
                self._letters[letter] = self._letters.get(letter, 0) | 1 << position
            self._places[name] = ((1 << len(folded)) - 1) << start, len(folded)
            start += len(folded) + 1  # a bit between two names takes the carry
        self._all = sum(bits for bits, _ in self._places.values())

    def near(self, name: str) -> str | None:
        """Return the known name that ``name`` is a near miss of."""
        folded = _folded(name)
        if len(folded) not in _FOLDED_LENGTHS:
            return None
        unmatched = self._all
        for letter in folded:
            found = unmatched & self._letters.get(letter, 0)
            unmatched = (unmatched + found | unmatched - found) & self._all
        for known, (bits, length) in self._places.items():
            common = length - (unmatched & bits).bit_count()
            if 2 * common >= _NEAR * (length + len(folded)):
                return known
        return None


def _folded(name: str) -> str:
    return "".join(filter(str.isalnum, name)).casefold()


_KNOWN_NAMES = _KnownNames()


def check_scopes(scopes: object) -> dict[str, Any]:
    """Return the scopes as the runtime reads them; unknown fields pass unchanged.

    Raises:
        InvalidScopes: not an object, a known field of the wrong type, a near miss of a known
            name, or a number that JSON can't represent.
    """
    if not isinstance(scopes, dict):
        raise InvalidScopes("scopes must be an object")
    checked = {}
    unknown = []
    for name, value in scopes.items():
        check = KNOWN_SCOPES.get(name)
        if check is None:
            unknown.append(name)
            checked[name] = value
        elif value is None:
            checked[name] = None
        else:
            try:
                checked[name] = check(value)
            except InvalidScopes as error:
                raise InvalidScopes(f"scopes.{name} {error}") from None
    if unknown:
        _check_unknown(unknown, checked)
    return checked


def _check_unknown(names: list[str], scopes: Mapping[str, object]) -> None:
    if sum(map(len, names)) + _MEMBER_BYTES * len(names) > _MAX_PAYLOAD_BYTES:
        raise TokenTooLarge("scopes do not fit in a token")
    for name in names:
        if (known := _KNOWN_NAMES.near(name)) is not None:
            raise InvalidScopes(f"scopes has an unknown field; did you mean {known}?")
        if not _finite(scopes[name]):
            raise InvalidScopes("scopes must not contain a number out of range")


def _finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return True
