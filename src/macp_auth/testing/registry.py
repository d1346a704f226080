"""What a check is, and how it ends when it does not simply pass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from macp_auth.testing.subject import SignerSubject


class Nonconformity(AssertionError):
    """The signer breaks the rule. The text names the fault, and what fixes it."""


class Skipped(Exception):
    """The rule can't be checked on this subject; the text says why."""


CheckFunction = Callable[["SignerSubject"], Awaitable[None]]


class Check(Struct, frozen=True):
    """One rule, and the function that checks it."""

    name: str
    rule: str
    """What a signer must do, in a line."""
    source: str
    """Where the rule comes from."""
    run: CheckFunction
    """Raises Nonconformity, or Skipped."""


def check(rule: str, *, source: str) -> Callable[[CheckFunction], Check]:
    """Make a check of a function, under its own name with hyphens."""
    return lambda function: Check(function.__name__.replace("_", "-"), rule, source, function)
