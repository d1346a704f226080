"""What ``make generate`` writes follows the declared settings, and a new setting needs nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, read, section
from tools.generate.__main__ import GENERATED

SETTINGS = "src/macp_auth/entrypoints/settings.py"
DECLARATION = '    example_seconds: Annotated[int, setting.seconds(7, 77, "An [example](tls.md).")] = 17\n'


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_file_is_not_stale(name: str) -> None:
    """Run `make generate` if this fails."""
    assert GENERATED[name](read(name)) == read(name)


def test_contributing_names_the_files_of_a_new_setting() -> None:
    """The declaration, what is generated, and the changelog; all exist."""
    named = re.findall(r"\]\(([^)]+)\)", section(read("CONTRIBUTING.md"), "How to add a setting"))
    assert named == [SETTINGS, *GENERATED, "CHANGELOG.md"]
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_a_new_setting_is_one_declaration(tmp_path: Path) -> None:
    """In a copy, the check names each generated file; then all have the setting, and nothing else changed."""
    for folder in ("src", "tools/generate", "tools/support"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tools/__init__.py", *GENERATED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    before = _contents(tmp_path)

    declared = (tmp_path / SETTINGS).read_text().replace("    issuer: ", f"{DECLARATION}    issuer: ", 1)
    (tmp_path / SETTINGS).write_text(declared)
    checked = _generate(tmp_path, "--check")
    assert checked.returncode == 1
    assert checked.stdout.splitlines() == [f"{name} is stale; run make generate" for name in GENERATED]

    assert _generate(tmp_path).returncode == 0
    assert _generate(tmp_path, "--check").returncode == 0
    after = _contents(tmp_path)
    assert {name for name in after if after[name] != before.get(name)} == {SETTINGS, *GENERATED}
    shown = (
        "`MACP_AUTH_EXAMPLE_SECONDS` | integer, seconds | `17` | An [example](tls.md). | a whole number of ",
        "# An example. Must be a whole number of seconds from 7 to 77.\n#MACP_AUTH_EXAMPLE_SECONDS=17\n",
        "  # -- An example. Must be a whole number of seconds from 7 to 77\n  exampleSeconds: null\n",
        '"exampleSeconds": {',
        "| `config.exampleSeconds` | `null` | An example. Must be a whole number of seconds from 7 to 77 |",
    )
    for name, text in zip(GENERATED, shown, strict=True):
        assert text in after[name].decode()
        assert text not in before[name].decode()


def _contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }  # fmt: skip


def _generate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.generate", *arguments],
        cwd=root, env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
