"""``macp-auth plugins``: what is installed, whether it conforms, and the start of a new one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from macp_auth import __version__
from macp_auth.adapters.plugins import BUILT_IN
from macp_auth.entrypoints.cli.root import root
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
    """An environment with plugins installed, of which one can't be imported."""
    info = tmp_path / "outside-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(
        "[macp_auth]\nseeded-pss = tests.conformance.seeded_bugs:bug_pss\nbroken = no_such_module\n"
        "seeded-unusable-settings = tests.conformance.seeded_bugs:bug_unusable_settings\n"
        "seeded-waits-in-thread = tests.conformance.kit_bugs:WAITS_IN_THREAD\n"
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


def test_checks_can_be_selected() -> None:
    """By name, each option more than once."""
    args = ["--only", "raw-form", "--only", "unknown-kid", "--only", "any-length", "--skip", "any-length"]
    checked = run({"MACP_AUTH_SIGNING_ALG": "ES256"}, "check", "ephemeral", *args, "--json")
    assert [result["check"] for result in json.loads(checked.stdout)] == ["raw-form", "unknown-kid"]


@pytest.mark.parametrize("option", ["--only", "--skip"])
def test_an_unknown_check_lists_the_checks_there_are(option: str) -> None:
    """As any wrong argument."""
    checked = run({}, "check", "ephemeral", option, "no-such")
    assert (checked.returncode, checked.stdout) == (2, "")
    assert all(name in checked.stderr for name in ("'no-such'", *CHECKS))


def test_a_call_that_hangs_is_named_and_the_command_ends(outside: dict[str, str], tmp_path: Path) -> None:
    """Within seconds, although the call still runs in a thread that Python would wait for."""
    Backend(tmp_path).add_key(RS256, age=10)
    began = time.monotonic()
    checked = run(
        {**outside, **seeded_environment(tmp_path)}, "check", "seeded-waits-in-thread", "--seconds", "0.5"
    )
    assert time.monotonic() - began < 15
    assert checked.returncode == 1
    assert re.findall(r"^failed +(\S+) ", checked.stdout, re.MULTILINE) == ["offers-a-key"]
    assert "key_versions() hangs" in checked.stdout


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


def test_a_new_project_has_its_name_everywhere(tmp_path: Path) -> None:
    """In the folder that was asked for; the tutorial's test installs and runs one."""
    made = run({}, "new", "acme-kms", str(tmp_path / "a project"))
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.splitlines() == [
        f"{tmp_path}/a project: 8 files written. Next:",
        f"  cd '{tmp_path}/a project'",
        "  pip install --editable . 'macp-auth[testing]'",
        "  python -m pytest",
    ]
    files = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    texts = {str(name): path.read_text() for name, path in files.items()}
    assert not re.search("example", "".join([*texts, *texts.values()]), re.IGNORECASE)
    assert 'acme-kms = "macp_auth_acme_kms"' in texts["a project/pyproject.toml"]
    module = texts["a project/src/macp_auth_acme_kms/__init__.py"]
    for part in ('name="acme-kms"', 'settings_prefix="MACP_AUTH_ACME_KMS_"', "class AcmeKmsSigner(Signer)"):
        assert part in module


def test_a_new_project_overwrites_nothing(tmp_path: Path) -> None:
    """A file of the same name stays as it is, and no other is written."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text("mine")
    made = run({}, "new", "acme", str(tmp_path))
    assert made.returncode == 2
    assert f"{tmp_path}/tests/conftest.py exists already; no file was written" in made.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["tests", "conftest.py"]
    assert (tmp_path / "tests" / "conftest.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["Acme", "acme_kms", "1acme", "acme-", "a--b", "../acme", "vault-transit"])
def test_a_new_signer_needs_a_name_of_its_own(name: str, tmp_path: Path) -> None:
    """One that fits into the names of a package and of variables, and is no built-in signer."""
    made = CliRunner().invoke(root, ["plugins", "new", name, str(tmp_path / "project")])
    assert made.exit_code == 2
    assert list(tmp_path.iterdir()) == []
