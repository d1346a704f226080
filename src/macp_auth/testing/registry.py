"""A check, and its outcomes other than success."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from macp_auth.testing.watched import WatchedSubject


class Nonconformity(AssertionError):
    """The signer violates the rule. The text names the fault and the remedy."""


class Skipped(Exception):
    """The rule can't be checked with this subject; the text says why."""


CheckFunction = Callable[["WatchedSubject"], Awaitable[None]]


class Check(Struct, frozen=True):
    """A rule, and the function that checks it."""

    name: str
    rule: str
    source: str
    """Origin of the rule."""
    run: CheckFunction
    """Raises Nonconformity, or Skipped."""
    needs: tuple[str, ...] = ()
    """The checks without which it says nothing: what they find, it would find again."""


def check(rule: str, *, source: str, needs: tuple[Check, ...] = ()) -> Callable[[CheckFunction], Check]:
    """Make a check of a function; its name is the function's, with hyphens."""
    names = tuple(each.name for each in needs)
    return lambda function: Check(function.__name__.replace("_", "-"), rule, source, function, names)
