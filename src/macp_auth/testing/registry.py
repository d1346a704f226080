"""What a check is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct

from macp_auth.testing.subject import SignerSubject

CheckFunction = Callable[[SignerSubject], Awaitable[None]]


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
