"""How a check ends when it does not simply pass."""

from __future__ import annotations


class Nonconformity(AssertionError):
    """The signer breaks the rule. The text names the fault, and what fixes it."""


class Skipped(Exception):
    """The rule can't be checked on this subject; the text says why."""
