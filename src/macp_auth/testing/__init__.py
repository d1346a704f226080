"""The conformance kit: the rules for every signer, built-in or plugin, and checks of them.

A plugin author subclasses :class:`macp_auth.testing.suite.SignerConformance` in a test module, and
:class:`SignerSubject` to control the backend. This package itself does not need pytest.
"""

from macp_auth.testing.checks import CHECKS
from macp_auth.testing.program import ProgramSubject
from macp_auth.testing.registry import Check, Nonconformity, Skipped
from macp_auth.testing.runner import Outcome, Result, run_check, run_checks
from macp_auth.testing.subject import SignerSubject

__all__ = [
    "CHECKS",
    "Check",
    "Nonconformity",
    "Outcome",
    "ProgramSubject",
    "Result",
    "SignerSubject",
    "Skipped",
    "run_check",
    "run_checks",
]
