"""Runs each check in its own thread and event loop, with a time limit.

So a signer that blocks its loop, or can't be cancelled, does not stop the run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import force_setattr

from macp_auth.domain.errors import MACPAuthError
from macp_auth.domain.redaction import shown
from macp_auth.testing.checks import CHECKS
from macp_auth.testing.program import NOT_OF_PROGRAMS, ProgramSubject
from macp_auth.testing.registry import Check, Nonconformity, Skipped
from macp_auth.testing.subject import SignerSubject
from macp_auth.testing.watched import OBEY_SECONDS, Calls, SubjectFault, WatchedSubject, place

CHECK_SECONDS = 60.0
"""Time limit of one check. A single call that hangs is found within its own, shorter limit."""
_RESTORE_SECONDS = 5.0
_POLL_SECONDS = 0.02


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
    """Yield the result of each check as it ends. ``seconds`` is the time limit of one check.

    A check is skipped if one that it needs has failed, so that each fault is reported once.
    """
    failed: dict[str, str] = {}  # the first cause, by check
    for check in CHECKS.values() if checks is None else checks:
        cause = next((failed[name] for name in check.needs if name in failed), None)
        result = run_check(check, subject, seconds) if cause is None else _not_checked(check, cause)
        if cause is not None or result.outcome is Outcome.FAILED:
            failed[check.name] = cause or check.name
        yield result


def run_check(check: Check, subject: SignerSubject, seconds: float = CHECK_SECONDS) -> Result:
    """Return the result of ``check`` on ``subject``; the backend is restored afterwards."""
    if isinstance(subject, ProgramSubject) and check.name in NOT_OF_PROGRAMS:
        return Result(check, Outcome.SKIPPED, NOT_OF_PROGRAMS[check.name])
    run = _Run(check, subject)
    run.start()
    deadline = time.monotonic() + seconds
    while run.is_alive():
        run.join(_POLL_SECONDS)
        fault = run.calls.hung()
        if fault is None and time.monotonic() > deadline:
            call = run.calls.in_progress()
            fault = f"{call} hangs, or {seconds:g} s are too few" if call else _too_slow(seconds)
        if fault is not None and run.is_alive():
            run.abandon()
            return Result(check, Outcome.FAILED, fault)
    return run.result


def _too_slow(seconds: float) -> str:
    return f"the check did not end within {seconds:g} s, although no call hangs: allow more seconds"


def explained(result: Result, subject: SignerSubject, seconds: float = CHECK_SECONDS) -> Result:
    """Return ``result``, or the reason why it says nothing: a check that it needs fails, too."""
    if result.outcome is Outcome.FAILED:
        for check in _needed(result.check):
            if run_check(check, subject, seconds).outcome is Outcome.FAILED:
                return _not_checked(result.check, check.name)
    return result


def _needed(check: Check) -> list[Check]:
    """Return all checks that ``check`` needs, also indirectly, in the order of a run."""
    names = set(check.needs)
    for each in reversed(CHECKS.values()):
        if each.name in names:
            names.update(each.needs)
    return [each for each in CHECKS.values() if each.name in names]


def _not_checked(check: Check, cause: str) -> Result:
    return Result(check, Outcome.SKIPPED, f"not checked, because {cause} failed")


class _Run(threading.Thread):
    """One run of a check."""

    result: Result

    def __init__(self, check: Check, subject: SignerSubject) -> None:
        super().__init__(name=f"check-{check.name}", daemon=True)
        self.calls = Calls()
        self._check = check
        self._subject = subject
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Run the check, and keep its result."""
        outcome, text, error = self._judged()
        self.result = Result(self._check, outcome, text, error)

    def _judged(self) -> tuple[Outcome, str, BaseException | None]:
        try:
            asyncio.run(self._checked())
        except (Nonconformity, SubjectFault) as fault:
            return Outcome.FAILED, str(fault), fault
        except Skipped as skipped:
            return Outcome.SKIPPED, str(skipped), None
        except MACPAuthError as error:  # its text contains no secret
            operation = self.calls.refused.get(error)
            text = f"{type(error).__name__}: {error}"
            return Outcome.FAILED, f"{operation} raised {text}" if operation else text, error
        except BaseException as error:  # noqa: BLE001 - nothing may end the run
            text = (
                f"the kit raised {type(error).__name__} ({place(error)}): this is a fault of macp-auth, not "
                "of the signer; report it"
            )
            return Outcome.FAILED, text, error
        return Outcome.PASSED, "", None

    async def _checked(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._loop.set_exception_handler(lambda *_: None)  # what tasks raise after the check says nothing new
        subject = WatchedSubject(self._subject, self.calls)
        try:
            await self._check.run(subject)
        except BaseException:
            with suppress(SubjectFault):  # what came first is reported
                await subject.restore_backend()
            raise
        await subject.restore_backend()

    def abandon(self) -> None:
        """Cancel the check. If a call ignores that, restore the backend without it."""
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._task.cancel)
        self.join(OBEY_SECONDS)
        if self.is_alive():
            restoring = threading.Thread(
                target=lambda: asyncio.run(self._subject.restore_backend()), daemon=True
            )
            restoring.start()
            restoring.join(_RESTORE_SECONDS)
