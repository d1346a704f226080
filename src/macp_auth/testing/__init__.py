"""The conformance kit: what every signer must do, ours and others', and a way to see whether it does.

A plugin author subclasses :class:`macp_auth.testing.suite.SignerConformance` in a test module, and
:class:`SignerSubject` to say what can be done to the backend. This package itself needs no pytest.
"""

from macp_auth.testing.checks import CHECKS
from macp_auth.testing.registry import Check, Nonconformity, Skipped
from macp_auth.testing.runner import Outcome, Result, run_check, run_checks
from macp_auth.testing.subject import SignerSubject

__all__ = [
    "CHECKS",
    "Check",
    "Nonconformity",
    "Outcome",
    "Result",
    "SignerSubject",
    "Skipped",
    "run_check",
    "run_checks",
]
