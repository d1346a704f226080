"""The environment of a signer that is a program."""

from __future__ import annotations

import secrets
import shlex
import sys

from tests.docs.pages import ROOT

PROGRAM = ROOT / "tests" / "support" / "program_signer.py"


def tiny(fault: str) -> dict[str, str]:
    """The variables that select the program with this fault.

    With a new secret: a service redacts one that it has had.
    """
    return {
        "MACP_AUTH_SIGNER": "tiny",
        "MACP_AUTH_SIGNER_COMMAND": shlex.join([sys.executable, "-E", "-s", str(PROGRAM), fault]),
        "MACP_AUTH_TINY_TOKEN": secrets.token_hex(16),
    }
