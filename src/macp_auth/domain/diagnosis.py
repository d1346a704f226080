"""What an examination of a deployment finds: each check, its verdict, and what fixes it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import force_setattr

from macp_auth.domain.redaction import shown

_MOST_LINES = 50


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    """It works, and should not stay so."""
    FAILURE = "failure"
    """It does not work, will stop working, or can't be trusted."""


class Finding(Struct, frozen=True):
    """One check that was made. Its texts are for everybody who asks, and hold no secret.

    What was found may quote a backend: it becomes one printable line of bounded length, without a credential.
    """

    check: str
    """Which, in one word of lower case and hyphens. Several findings may be of one check."""
    status: Status
    text: str
    """What was found, in one line."""
    remedy: str | None = None
    """The command, setting or policy that fixes it, in one or more lines; None if all is well."""

    def __post_init__(self) -> None:
        """Make what others have said fit to be shown."""
        force_setattr(self, "check", shown(self.check))
        force_setattr(self, "text", shown(self.text))
        if self.remedy is not None:
            force_setattr(self, "remedy", "\n".join(map(shown, self.remedy.splitlines()[:_MOST_LINES])))


def ok(check: str, text: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(check, Status.OK, text)


def warning(check: str, text: str, remedy: str | None) -> Finding:
    """Return the finding that something works and should not stay so."""
    return Finding(check, Status.WARNING, text, remedy)


def failure(check: str, text: str, remedy: str | None) -> Finding:
    """Return the finding that something does not work, will stop working, or can't be trusted."""
    return Finding(check, Status.FAILURE, text, remedy)
