"""The checks as a pytest class. The one module of the kit that needs pytest: ``macp-auth[testing]``."""

from __future__ import annotations

import pytest

from macp_auth.testing.checks import CHECKS
from macp_auth.testing.registry import Check, Nonconformity
from macp_auth.testing.runner import CHECK_SECONDS, Outcome, explained, run_check
from macp_auth.testing.subject import SignerSubject


class SignerConformance:
    """Subclass it, name the class ``Test...``, and give it a fixture ``subject``; each check becomes a test.

    A failure names the fault and its remedy, a skip the reason.
    """

    check_seconds = CHECK_SECONDS
    """Time limit of one check."""

    @pytest.fixture
    def subject(self) -> SignerSubject:
        """Return the subject of the checks."""
        raise NotImplementedError("override the fixture `subject`, and return a SignerSubject")

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    def test_conforms(self, check: Check, subject: SignerSubject) -> None:
        """Run one check."""
        __tracebackhide__ = True
        result = run_check(check, subject, self.check_seconds)
        result = explained(result, subject, self.check_seconds)
        if result.outcome is Outcome.SKIPPED:
            pytest.skip(result.text)
        if result.outcome is Outcome.FAILED:
            text = f"{check.name}: {result.text}\n(the rule: {check.rule}; from {check.source})"
            raise Nonconformity(text) from result.error
