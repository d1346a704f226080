"""What tokens may allow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from macp_auth.domain.errors import InvalidScopes, TokenTooLarge
from macp_auth.domain.scopes import KNOWN_SCOPES, check_scopes


@pytest.mark.parametrize("scopes", [None, [], ["can_start_sessions"], True, 1, "x"])
def test_not_an_object(scopes: object) -> None:
    with pytest.raises(InvalidScopes, match="^scopes must be an object$"):
        check_scopes(scopes)


@pytest.mark.parametrize("name", KNOWN_SCOPES)
def test_null_is_allowed(name: str) -> None:
    """The runtime reads null as absent."""
    assert check_scopes({name: None}) == {name: None}


@pytest.mark.parametrize(
    ("sent", "minted"), [(0, 0), (1.0, 1), (-0.0, 0), (1e2, 100), (2**64 - 1, 2**64 - 1), (1e19, 10**19)]
)
def test_integral_numbers_become_integers(sent: float, minted: int) -> None:
    """The runtime's serde reads no 1.0 where it wants a usize."""
    value = check_scopes({"max_open_sessions": sent})["max_open_sessions"]
    assert type(value) is int
    assert value == minted


WRONG: dict[str, list[Any]] = {
    "can_start_sessions": ["true", 1, 0, [], {}],
    "can_manage_mode_registry": ["no", 1.0],
    "is_observer": ["yes", 0],
    "allowed_modes": ["a", {}, [1], [None], ["a", ["b"]], True],
    "max_open_sessions": [-1, 1.5, "1", True, 2**64, 1e20, float("inf"), float("nan")],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in WRONG for value in WRONG[name]], ids=repr
)
def test_wrong_types(name: str, value: object) -> None:
    """A value that the runtime can't deserialise is refused, naming the field."""
    with pytest.raises(InvalidScopes, match=rf"^scopes\.{name} must be"):
        check_scopes({name: value})


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("can_start_session", "can_start_sessions"),
        ("can_strat_sessions", "can_start_sessions"),
        ("CAN_START_SESSIONS", "can_start_sessions"),
        ("canStartSessions", "can_start_sessions"),
        ("can-start-sessions", "can_start_sessions"),
        (" can_start_sessions", "can_start_sessions"),
        ("is_obsever", "is_observer"),
        ("isObserver", "is_observer"),
        ("allowed_mode", "allowed_modes"),
        ("allowedModes", "allowed_modes"),
        ("max_open_session", "max_open_sessions"),
        ("maxOpenSessions", "max_open_sessions"),
        ("can_manage_mode_registy", "can_manage_mode_registry"),
        ("can_manage_modes_registry", "can_manage_mode_registry"),
        ("is_observer\ud800", "is_observer"),
    ],
)
def test_near_misses(name: str, known: str) -> None:
    """A misspelt restriction would be dropped in silence and grant everything."""
    with pytest.raises(InvalidScopes, match=f"did you mean {known}"):
        check_scopes({name: False})


@pytest.mark.parametrize(
    "name", ["x", "", "__proto__", "tenant", "allowed_roles", "allowed_tools", "observers_of", "scope"]
)
def test_unknown_fields_pass(name: str) -> None:
    """Fields that the runtime does not know belong to other software."""
    value = {"a": [1, 2.5, None, {"b": "c"}]}
    assert check_scopes({name: value}) == {name: value}


@pytest.mark.parametrize("value", [float("inf"), [float("-inf")], {"a": [{"b": float("nan")}]}])
def test_unknown_fields_hold_finite_numbers(value: object) -> None:
    """An infinity would be written as null, which means something else."""
    with pytest.raises(InvalidScopes, match="out of range"):
        check_scopes({"x": value})


def test_many_unknown_names() -> None:
    """The search for near misses is bounded: what can't fit in a token is not searched."""
    with pytest.raises(TokenTooLarge):
        check_scopes({f"can_start_zessio{number}": 1 for number in range(5000)})


def test_as_many_unknown_names_as_fit_in_a_token() -> None:
    """The bound refuses none of them."""
    scopes = {f"{number:03}": 1 for number in range(760)}
    assert check_scopes(scopes) == scopes


@given(st.text(st.sampled_from(sorted({*"".join(KNOWN_SCOPES), "A", "-", "z", "é"})), max_size=30))
@example("isobsever")
@example("can_manage_mode_registry_x")
def test_the_measure_of_nearness(name: str) -> None:
    """A near miss is one by the plain definition: twice the common subsequence by both lengths."""
    folded = "".join(filter(str.isalnum, name)).casefold()
    ratios = {}
    for known in KNOWN_SCOPES:
        target = known.replace("_", "")
        ratios[known] = 2 * common_subsequence(folded, target) / (len(folded) + len(target))
    if name in KNOWN_SCOPES or max(ratios.values()) < 0.87:
        check_scopes({name: None})
        return
    with pytest.raises(InvalidScopes, match="did you mean"):
        check_scopes({name: None})


def common_subsequence(one: str, other: str) -> int:
    """The length of the longest, by the table that every textbook has."""
    row = [0] * (len(other) + 1)
    for letter in one:
        above = row
        row = [0]
        for column, candidate in enumerate(other, 1):
            row.append(above[column - 1] + 1 if letter == candidate else max(above[column], row[-1]))
    return row[-1]
