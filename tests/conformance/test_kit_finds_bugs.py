"""The kit passes a signer without a fault, and names the one fault of each that has one."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from macp_auth import Algorithm
from macp_auth.testing import CHECKS, Check, Outcome, SignerSubject, run_check, run_checks
from macp_auth.testing.checks import signatures
from macp_auth.testing.runner import explained
from macp_auth.testing.suite import SignerConformance
from macp_auth.testing.watched import WatchedSubject
from tests.conformance.kit_bugs import GOOD, KIT_BUGS
from tests.conformance.seeded_bugs import BUGS, Backend, Bug, GoodSigner
from tests.conformance.subjects import SeededSubject, seeded_environment

ALL_BUGS = {**BUGS, **KIT_BUGS}


def subject_of(bug: Bug, folder: Path) -> SeededSubject:
    backend = Backend(folder)
    if bug.check == "published-keys-are-good" and bug in BUGS.values():
        backend.add_key_with_short_x()
    else:
        backend.add_key(bug.algorithm, age=1000)
        backend.add_key(bug.algorithm, age=10)
    plugin = bug.plugin("seeded")
    if "sign_seconds" not in bug.declares:
        plugin = msgspec.structs.replace(plugin, sign_seconds=0.5)  # a check that lets the backend hang waits
    return SeededSubject(plugin, seeded_environment(folder))


def failures(subject: SignerSubject, seconds: float = 60) -> dict[str, str]:
    """Run the whole kit, and return the text of each check that failed."""
    results = run_checks(subject, seconds=seconds)
    return {result.check.name: result.text for result in results if result.outcome is Outcome.FAILED}


@pytest.mark.slow  # the whole kit for each of them
@pytest.mark.parametrize("name", ALL_BUGS)
def test_each_fault_is_named_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check that is for it fails, in words that say what is wrong; no other check fails."""
    bug = ALL_BUGS[name]
    # On a busy machine too, the signer makes a leading zero before the check gives up.
    monkeypatch.setattr(signatures, "LEADING_ZERO_SECONDS", 60)
    failed = failures(subject_of(bug, tmp_path), bug.seconds)
    assert list(failed) == [bug.check], failed
    assert re.search(bug.says, failed[bug.check]), failed


@pytest.mark.parametrize("algorithm", Algorithm)
class TestGoodSigner(SignerConformance):
    """A signer without a fault, with all capabilities, passes."""

    @pytest.fixture
    def subject(self, algorithm: Algorithm, tmp_path: Path) -> SeededSubject:
        return subject_of(Bug(signer=GoodSigner, algorithm=algorithm, check="", says=""), tmp_path)


@pytest.mark.parametrize("name", GOOD)
def test_what_is_unusual_passes(name: str, tmp_path: Path) -> None:
    """A call that blocks, among others: it has a process of its own."""
    assert failures(subject_of(Bug(signer=GOOD[name], check="", says=""), tmp_path)) == {}


def test_every_check_has_a_bug_that_it_finds() -> None:
    """A check that finds nothing may check nothing."""
    found_by_others = {"pyjwt-verifies", "joserfc-verifies"}  # the judge that raw-form uses comes first
    assert {bug.check for bug in ALL_BUGS.values()} == CHECKS.keys() - found_by_others


def test_a_check_needs_only_earlier_ones() -> None:
    """Or it would not be skipped."""
    names = list(CHECKS)
    for check in CHECKS.values():
        assert all(names.index(need) < names.index(check.name) for need in check.needs), check.name


def test_a_result_that_follows_from_another_fault_is_no_failure(tmp_path: Path) -> None:
    """Also in a suite, whose tests may run alone or in any order."""
    subject = subject_of(KIT_BUGS["keys-as-generator"], tmp_path)
    result = explained(run_check(CHECKS["raw-form"], subject), subject)
    assert (result.outcome, result.text) == (Outcome.SKIPPED, "not checked, because offers-a-key failed")


class BrokenSubject(SeededSubject):
    """A subject whose server does not stop."""

    async def break_backend(self) -> None:
        raise ProcessLookupError(3, "no such process")

    async def hang_backend(self) -> None:
        await asyncio.sleep(30)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "backend-down-and-back",
            r"break_backend\(\) of the subject raised ProcessLookupError \(test_kit_finds_bugs.py:\d+\): fix",
        ),
        ("hang-is-bounded", r"hang_backend\(\) of the subject hangs"),
    ],
)
def test_the_subject_is_blamed_for_its_own_faults(name: str, says: str, tmp_path: Path) -> None:
    """With its method and the place, and without a word on the signer."""
    good = subject_of(Bug(signer=GoodSigner, check="", says=""), tmp_path)
    subject = BrokenSubject(good.plugin, dict(good.environ))
    result = run_check(CHECKS[name], subject, seconds=1)
    assert result.outcome is Outcome.FAILED
    assert re.search(says, result.text), result.text


def test_the_kit_is_blamed_for_its_own_faults(tmp_path: Path) -> None:
    """With the place, so that it can be reported."""

    async def broken(subject: WatchedSubject) -> None:
        raise LookupError(subject.plugin.name)

    subject = subject_of(Bug(signer=GoodSigner, check="", says=""), tmp_path)
    result = run_check(Check("broken", "", "", broken), subject)
    assert re.match(r"the kit raised LookupError \(test_kit_finds_bugs.py:\d+\)", result.text)


class SubjectWithServer(SeededSubject):
    """As in the guide: its constructor takes more than a plugin and variables."""

    def __init__(self, good: SeededSubject, server: object) -> None:
        super().__init__(good.plugin, dict(good.environ))
        self.server = server


@pytest.mark.parametrize("name", ["quiet-refusal", "quiet-errors"])
def test_a_subject_may_have_any_constructor(name: str, tmp_path: Path) -> None:
    """The kit tries other variables without calling it."""
    good = subject_of(Bug(signer=GoodSigner, check="", says=""), tmp_path)
    assert run_check(CHECKS[name], SubjectWithServer(good, object())).outcome is Outcome.PASSED


def test_the_backend_is_restored_after_a_call_that_blocks(tmp_path: Path) -> None:
    """Or all later checks would fail."""
    subject = subject_of(KIT_BUGS["blocks-when-hanging"], tmp_path)
    assert run_check(CHECKS["hang-is-bounded"], subject).outcome is Outcome.FAILED
    assert not (tmp_path / "hang").exists()


def test_the_kit_needs_no_pytest() -> None:
    """The command that checks a configured signer runs where pytest is not installed, and joserfc neither."""
    code = (
        "import sys; sys.modules['pytest'] = sys.modules['joserfc'] = None; import macp_auth.testing; "
        "sys.exit(bool({'litestar', 'uvicorn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
