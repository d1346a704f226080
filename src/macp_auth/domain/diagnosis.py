"""The findings of a diagnosis: each check, its status and its remedy."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import force_setattr

from macp_auth.domain.redaction import shown

_MOST_LINES = 50


class Status(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    """It works, but should be changed."""
    FAILURE = "failure"
    """It does not work, will stop working, or is insecure."""


class Finding(Struct, frozen=True):
    """The result of one check. It contains no secret.

    A text may quote a backend: it is reduced to one printable line of bounded length, without a credential.
    """

    check: str
    """The name, in lower case and hyphens. A check may have several findings."""
    status: Status
    text: str
    """The result, in one line."""
    remedy: str | None = None
    """The command, setting or policy that fixes it, in one or more lines; None if nothing is wrong."""

    def __post_init__(self) -> None:
        """Redact the texts."""
        force_setattr(self, "check", shown(self.check))
        force_setattr(self, "text", shown(self.text))
        if self.remedy is not None:
            force_setattr(self, "remedy", "\n".join(map(shown, self.remedy.splitlines()[:_MOST_LINES])))


def ok(check: str, text: str) -> Finding:
    """Return a finding with status OK."""
    return Finding(check, Status.OK, text)


def warning(check: str, text: str, remedy: str | None) -> Finding:
    """Return a finding with status WARNING."""
    return Finding(check, Status.WARNING, text, remedy)


def failure(check: str, text: str, remedy: str | None) -> Finding:
    """Return a finding with status FAILURE."""
    return Finding(check, Status.FAILURE, text, remedy)
