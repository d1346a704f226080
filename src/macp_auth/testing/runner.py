"""Runs each check in its own thread and event loop, with a time limit.

So a signer that blocks its loop, or can't be cancelled, does not stop the run.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

from msgspec import Struct
from msgspec.structs import force_setattr

from macp_auth.domain.errors import MACPAuthError
from macp_auth.domain.redaction import shown
from macp_auth.testing.checks import CHECKS
from macp_auth.testing.registry import Check, Nonconformity, Skipped
from macp_auth.testing.subject import SignerSubject

CHECK_SECONDS = 60.0
"""Time limit of one check; the slowest start processes, or wait until a backend is restored."""


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Result(Struct, frozen=True):
    """How one check ended, and why."""

    check: Check
    outcome: Outcome
    text: str = ""
    """The fault and its remedy, or why the check was skipped."""
    error: BaseException | None = None
    """The cause of a failure, for a debugger."""

    def __post_init__(self) -> None:
        """Redact and escape ``text``, which may come from a signer or its backend."""
        force_setattr(self, "text", shown(self.text))


def run_checks(
    subject: SignerSubject, checks: Iterable[Check] | None = None, seconds: float = CHECK_SECONDS
) -> Iterator[Result]:
    """Yield the result of each check as it ends. ``seconds`` is the time limit of one check."""
    for check in CHECKS.values() if checks is None else checks:
        yield run_check(check, subject, seconds)


def run_check(check: Check, subject: SignerSubject, seconds: float = CHECK_SECONDS) -> Result:
    """Return the result of ``check`` on ``subject``; the backend is restored afterwards."""
    results: list[Result] = []
    thread = threading.Thread(
        target=lambda: results.append(_result(check, subject)), name=f"check-{check.name}", daemon=True
    )
    thread.start()
    thread.join(seconds)
    if results:
        return results[0]
    return Result(
        check,
        Outcome.FAILED,
        f"it does not end within {seconds:g} s: a call blocks the event loop, or can't be cancelled",
    )


def _result(check: Check, subject: SignerSubject) -> Result:
    try:
        asyncio.run(_run(check, subject))
    except Nonconformity as fault:
        return Result(check, Outcome.FAILED, str(fault), fault)
    except Skipped as skipped:
        return Result(check, Outcome.SKIPPED, str(skipped))
    except MACPAuthError as error:  # its text contains no secret
        return Result(check, Outcome.FAILED, f"{type(error).__name__}: {error}", error)
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, and its text may be secret
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return Result(
            check,
            Outcome.FAILED,
            f"the signer raised {type(error).__name__} ({place}), which is not a SignerError: "
            "translate it where the backend is called",
            error,
        )
    return Result(check, Outcome.PASSED)


async def _run(check: Check, subject: SignerSubject) -> None:
    try:
        await check.run(subject)
    finally:
        await subject.restore_backend()
