"""``macp-auth plugins``: what is installed, and whether it conforms."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from macp_auth import __version__
from macp_auth.adapters.plugins import BUILT_IN
from macp_auth.testing import CHECKS
from tests.conformance.seeded_bugs import RS256, Backend
from tests.conformance.subjects import seeded_environment
from tests.docs.pages import ROOT
from tools.support.service import clean_environment, free_port


def run(env: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "macp_auth", "plugins", *args]
    return subprocess.run(
        command, env=clean_environment(env), capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture
def outside(tmp_path: Path) -> dict[str, str]:
    """An environment with three plugins installed, of which one can't be imported."""
    info = tmp_path / "outside-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(
        "[macp_auth]\nseeded-pss = tests.conformance.seeded_bugs:bug_pss\nbroken = no_such_module\n"
        "seeded-unusable-settings = tests.conformance.seeded_bugs:bug_unusable_settings\n"
    )
    return {"PYTHONPATH": f"{tmp_path}:{ROOT}"}


def test_the_list_names_what_brings_each_signer(outside: dict[str, str]) -> None:
    """The built-in ones belong to macp-auth; nothing is imported, or the broken one would fail."""
    listed = run({**outside, "MACP_AUTH_SIGNER": "broken"}, "list", "--json")
    assert listed.returncode == 0, listed.stderr
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert list(rows)[: len(BUILT_IN)] == list(BUILT_IN)
    assert rows["ephemeral"] == {
        "name": "ephemeral",
        "version": __version__,
        "distribution": "macp-auth",
        "selected": False,
    }
    assert rows["broken"] == {"name": "broken", "version": "2.5", "distribution": "outside", "selected": True}


@pytest.mark.parametrize(
    ("env", "selected"),
    [
        ({}, "ephemeral"),
        ({"MACP_AUTH_SIGNING_KEY_JSON": ""}, "env-jwk"),
        ({"MACP_AUTH_SIGNER": "jwk-file"}, "jwk-file"),
    ],
)
def test_a_star_marks_the_selected_one(env: dict[str, str], selected: str) -> None:
    """As the service itself would choose."""
    assert re.findall(r"^\* (\S+)", run(env, "list").stdout, re.MULTILINE) == [selected]


@pytest.mark.parametrize("args", [[], ["--json"]])
def test_a_misspelt_selection_is_reported(args: list[str]) -> None:
    """After the names that there are; what the variable holds is not shown."""
    listed = run({"MACP_AUTH_SIGNER": "vault-transti"}, "list", *args)
    assert listed.returncode == 2
    assert all(name in listed.stdout for name in BUILT_IN)
    assert listed.stderr == "macp-auth: unknown signer in MACP_AUTH_SIGNER\n"


def test_a_built_in_signer_passes() -> None:
    """Each check is printed with its rule; those that need more than the environment are skipped."""
    checked = run({"MACP_AUTH_SIGNING_ALG": "ES256"}, "check", "ephemeral")
    lines = re.findall(r"^(passed|failed|skipped) +(\S+)  ", checked.stdout, re.MULTILINE)
    assert [name for _, name in lines] == list(CHECKS)
    assert ("skipped", "rotation-is-seen") in lines
    assert re.search(r"\d+ passed, 0 failed, \d+ skipped$", checked.stdout.strip())
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_faulty_plugin_fails(outside: dict[str, str], tmp_path: Path) -> None:
    """Exit 1, and the fault is named with its remedy."""
    Backend(tmp_path).add_key(RS256, age=10)
    checked = run({**outside, **seeded_environment(tmp_path)}, "check", "seeded-pss", "--json")
    assert checked.returncode == 1, checked.stderr
    results = {result["check"]: result for result in json.loads(checked.stdout)}
    assert results["raw-form"]["outcome"] == "failed"
    assert "PSS padding, which is PS256" in results["raw-form"]["text"]
    assert results["kids-are-unique"]["outcome"] == "passed"


def test_an_unreachable_backend_is_reported_once() -> None:
    """The checks after the one that finds it out would each wait, and say the same."""
    vault = {
        "MACP_AUTH_VAULT_ADDR": f"http://127.0.0.1:{free_port()}",
        "MACP_AUTH_VAULT_TOKEN": "t",
        "MACP_AUTH_VAULT_KEY": "k",
    }
    checked = run(vault, "check", "vault-transit")
    assert checked.returncode == 1
    assert len(re.findall(r"^failed ", checked.stdout, re.MULTILINE)) == 1
    assert re.search(r"\d+ passed, 1 failed, \d+ skipped$", checked.stdout.strip())
    assert checked.stderr == "macp-auth: cannot reach the backend; no other check was run\n"


@pytest.mark.parametrize(
    ("env", "name", "message"),
    [
        ({}, "env-jwk", "MACP_AUTH_SIGNING_KEY_JSON must be set"),
        ({}, "broken", "'broken' can't be loaded"),
        ({}, "seeded-unusable-settings", "'seeded-unusable-settings' can't be configured: the field 'label'"),
    ],
)
def test_what_cannot_be_checked_is_reported_on_one_line(
    outside: dict[str, str], env: dict[str, str], name: str, message: str
) -> None:
    """Exit 2, on standard error."""
    checked = run({**outside, **env}, "check", name)
    assert (checked.returncode, checked.stdout) == (2, "")
    assert re.fullmatch(rf"macp-auth: .*{message}.*", checked.stderr.strip())


def test_an_unknown_name_lists_the_names_there_are() -> None:
    """As any wrong argument."""
    checked = run({}, "check", "no-such")
    assert checked.returncode == 2
    assert all(name in checked.stderr for name in ("NAME", *BUILT_IN))
