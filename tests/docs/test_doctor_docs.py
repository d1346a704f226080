"""docs/doctor.md has every check and option, and shows what the command says."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from macp_auth.adapters.signers.vault_transit.doctor import Check as VaultCheck
from macp_auth.domain.claims import probe_claims
from macp_auth.domain.diagnosis import Status
from macp_auth.entrypoints.cli.diagnosis import SECONDS, Check
from macp_auth.entrypoints.cli.doctor import doctor
from macp_auth.entrypoints.cli.output import MARKS
from tests.docs.pages import PAGES, plain, read, rows, section
from tests.docs.terminal import Terminal, assert_as_shown, steps
from tools.support.openbao import OpenBao
from tools.support.programs import require_tools
from tools.support.service import clean_environment

PAGE = read("docs/doctor.md")
TOP = PAGE.partition("\n## ")[0]
VAULT = section(PAGE, "Signer vault-transit")


@pytest.fixture
def bash() -> None:
    """What the page's commands call."""
    require_tools("bash")


def follow(page: str, directory: Path, env: dict[str, str]) -> None:
    """Type in the one command of ``page``, and compare."""
    path = f"{Path(sys.prefix, 'bin')}{os.pathsep}{os.environ['PATH']}"
    terminal = Terminal(directory, {**clean_environment(env), "PATH": path})
    try:
        [(command, shown)] = steps(page)
        assert shown
        assert_as_shown(shown, terminal.run(command))
    finally:
        terminal.close()


@pytest.mark.usefixtures("bash")
def test_the_first_example(tmp_path: Path) -> None:
    """Without any setting, the command says what the page shows."""
    follow(TOP, tmp_path, {})


@pytest.mark.usefixtures("bash")
def test_the_example_with_vault(tmp_path: Path) -> None:
    """With the two faults that the page names, the command says what the page shows."""
    with OpenBao(tmp_path) as server:
        server.create_key("agents", "ecdsa-p256", auto_rotate_period="1h")
        server.write_policy("macp-auth", 'path "transit/keys/agents" { capabilities = ["read"] }')
        env = {
            "MACP_AUTH_SIGNER": "vault-transit",
            "MACP_AUTH_VAULT_KEY": "agents",
            "VAULT_ADDR": server.url,
            "VAULT_TOKEN": server.token(["macp-auth"], no_parent=True, period="24h"),
        }
        follow(VAULT, tmp_path, env)


@pytest.mark.parametrize(
    ("page", "checks"), [(section(PAGE, "Every signer"), Check), (VAULT, VaultCheck)], ids=["any", "vault"]
)
def test_the_tables_list_the_checks(page: str, checks: type[Check | VaultCheck]) -> None:
    """Each check is explained, in the order in which they are made, and no other."""
    assert [plain(row[0]) for row in rows(page)] == [check.value for check in checks]


def test_the_marks_and_the_options_are_the_command_s() -> None:
    """The page explains each mark, status and option."""
    meaning = section(PAGE, "What a finding means")
    first_cells = [plain(row[0]) for row in rows(meaning)]
    assert first_cells[:3] == [MARKS[status][0].strip() for status in Status]
    assert all(f"`{status}`" in meaning for status in Status)
    options = {name for parameter in doctor.params for name in parameter.opts}
    assert set(re.findall(r"--[a-z]+", " ".join(first_cells))) == options
    assert f"{SECONDS:g} s" in TOP


@pytest.mark.parametrize("page", ["docs/doctor.md", "docs/api.md"])
def test_a_page_says_what_is_signed_as_a_test(page: str) -> None:
    """A reader who finds such a token can judge it."""
    now = 1_800_000_000
    years = (now - probe_claims("issuer", "audience", now).exp) // (365 * 24 * 3600)
    assert f"a token that expired {years} years ago" in " ".join(read(page).split())


def test_pages_name_findings_that_there_are() -> None:
    """As `FAIL signer`, for readers who compare it with the output."""
    named = {name for page in PAGES for name in re.findall(r"`(?:FAIL|WARN) ([a-z-]+)`", page.read_text())}
    assert "signer" in named
    assert named <= {*Check, *VaultCheck}
