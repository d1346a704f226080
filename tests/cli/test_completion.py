"""Shells complete the commands, set up as docs/getting-started.md says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs.pages import plain, read, rows, section
from tools.support.programs import require_tools
from tools.support.service import clean_environment

COMPLETE_IN_BASH = """
. ~/.local/share/bash-completion/completions/macp-auth
complete_last() { COMP_WORDS=(macp-auth "$@"); COMP_CWORD=$#; COMPREPLY=(); _macp_auth_completion macp-auth; }
complete -p macp-auth
complete_last key; echo "${COMPREPLY[*]}"
complete_last mint --preset p; echo "${COMPREPLY[*]}"
"""


def test_shells_complete_commands_and_values(tmp_path: Path) -> None:
    """The commands of the page write the scripts; bash then completes with one of them."""
    require_tools("bash")
    setup = [
        plain(command.partition("`, ")[0])
        for _, command in rows(section(read("docs/getting-started.md"), "8. Completion"))
    ]
    assert [command.split("_source")[0].rpartition("=")[2] for command in setup] == ["bash", "zsh", "fish"]
    folders = [
        tmp_path / ".local/share/bash-completion/completions",
        tmp_path / ".zfunc",
        tmp_path / ".config/fish/completions",
    ]
    for folder in folders:
        folder.mkdir(parents=True)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    run = subprocess.run(
        ["bash", "-e", "-c", "\n".join(setup) + COMPLETE_IN_BASH],
        env=clean_environment({"HOME": str(tmp_path), "PATH": path}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[1:] == ["keys", "participant"]
    assert (folders[1] / "_macp-auth").read_text().startswith("#compdef macp-auth")
    assert "complete --no-files --command macp-auth" in (folders[2] / "macp-auth.fish").read_text()
