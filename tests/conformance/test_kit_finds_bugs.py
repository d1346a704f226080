"""The kit proved: it passes a signer without a fault, and names the fault of each that has one."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from macp_auth import Algorithm
from macp_auth.testing import CHECKS, Outcome, run_check, run_checks
from macp_auth.testing.suite import SignerConformance
from tests.conformance.seeded_bugs import BUGS, Backend, Bug, GoodSigner
from tests.conformance.subjects import SeededSubject, seeded_environment


def subject_of(bug: Bug, folder: Path) -> SeededSubject:
    backend = Backend(folder)
    if bug.check == "published-keys-are-good":
        backend.add_key_with_short_x()
    else:
        backend.add_key(bug.algorithm, age=1000)
        backend.add_key(bug.algorithm, age=10)
    return SeededSubject(bug.plugin("seeded"), seeded_environment(folder))


@pytest.mark.parametrize("name", BUGS)
def test_each_fault_is_named(name: str, tmp_path: Path) -> None:
    """The check that is for it fails, in words that say what is wrong."""
    bug = BUGS[name]
    result = run_check(CHECKS[bug.check], subject_of(bug, tmp_path), seconds=20)
    assert (result.outcome, bool(re.search(bug.says, result.text))) == (Outcome.FAILED, True), result.text


@pytest.mark.parametrize("algorithm", Algorithm)
class TestGoodSigner(SignerConformance):
    """A signer without a fault, with all capabilities, passes."""

    @pytest.fixture
    def subject(self, algorithm: Algorithm, tmp_path: Path) -> SeededSubject:
        return subject_of(Bug(signer=GoodSigner, algorithm=algorithm, check="", says=""), tmp_path)


def test_every_check_has_a_bug_that_it_finds() -> None:
    """A check that finds nothing may check nothing."""
    found_by_others = {
        *(
            "pyjwt-verifies",
            "joserfc-verifies",
            "every-byte-counts",
        ),  # the judge that raw-form uses comes first
        "spawned-worker",  # as kids-survive-a-worker
    }
    assert {bug.check for bug in BUGS.values()} == CHECKS.keys() - found_by_others


def test_a_signer_that_never_comes_back_fails_and_the_run_goes_on(tmp_path: Path) -> None:
    """The time limit holds also where a call blocks its event loop or ignores its cancellation."""

    class Blocks(GoodSigner):
        async def ask(self) -> None:
            time.sleep(2)  # noqa: ASYNC251 - the fault

    subject = subject_of(Bug(signer=Blocks, check="", says=""), tmp_path)
    results = list(run_checks(subject, [CHECKS["raw-form"], CHECKS["kids-are-unique"]], seconds=0.3))
    assert [result.outcome for result in results] == [Outcome.FAILED] * 2
    assert "does not end within 0.3 s" in results[0].text


def test_the_kit_needs_no_pytest() -> None:
    """The command that checks a configured signer runs where pytest is not installed, and joserfc neither."""
    code = (
        "import sys; sys.modules['pytest'] = sys.modules['joserfc'] = None; import macp_auth.testing; "
        "sys.exit(bool({'litestar', 'uvicorn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
