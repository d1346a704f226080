"""docs/runbook.md does what it shows to a service that runs, and the rotation pages say what the code says.

Where a procedure waits, time is shortened by settings: the publish lead and the retire lag are 8 s.
A step that only reads is repeated until its output is that of the page, as a waiting reader does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from macp_auth.domain.policy import MACP_RUNTIME, VERIFIERS, Verifier
from macp_auth.domain.rotation import State
from macp_auth.entrypoints.cli.inspection import policy_of
from tests.docs.pages import Block, plain, read, rows, section
from tests.docs.terminal import Terminal, assert_as_shown, steps
from tests.docs.test_callers_docs import RUNBOOK_PROCEDURES as CALLERS_PROCEDURES
from tests.docs.vault_procedures import PROCEDURES as VAULT_PROCEDURES
from tests.docs.vault_procedures import without_log
from tools.support.programs import require_tools
from tools.support.service import Service, clean_environment

pytestmark = pytest.mark.slow  # each procedure of the page, on a service of its own

RUNBOOK = read("docs/runbook.md")
ROTATION = read("docs/rotation.md")
REFERENCE = read("docs/rotation-reference.md")
NUMBERS = section(REFERENCE, "Publish lead") + section(REFERENCE, "Retire lag")
DISPATCH = "Tokens can't be minted"

WAITING = {"Routine rotation", "Algorithm migration"}
_SHORT, _LONG = 8, 3600  # seconds: for the procedures that wait, and for those whose keys must not change
_LOOKS = ("curl ", "grep ", "macp-auth keys list")
_LOOK_SECONDS = 3 * _SHORT  # the longest wait of a procedure, on a loaded machine
_ERROR = "macp-auth: "


def _policy(lead_and_lag: int) -> dict[str, str]:
    return {
        "MACP_AUTH_KEY_REFRESH_SECONDS": "1",
        "MACP_AUTH_JWKS_MAX_AGE_SECONDS": "0",
        "MACP_AUTH_VERIFIER_CACHE_TTL_SECONDS": "1",
        "MACP_AUTH_VERIFIER_STALE_GRACE_SECONDS": "0",
        "MACP_AUTH_VERIFIER_LEEWAY_SECONDS": "0",
        "MACP_AUTH_CLOCK_SKEW_SECONDS": "0",
        "MACP_AUTH_MAX_TTL_SECONDS": "7",
        "MACP_AUTH_KEY_PUBLISH_LEAD_SECONDS": str(lead_and_lag),
        "MACP_AUTH_KEY_RETIRE_LAG_SECONDS": str(lead_and_lag),
    }


def _commands_on_path() -> dict[str, str]:
    return {"PATH": f"{Path(sys.prefix, 'bin')}{os.pathsep}{os.environ['PATH']}"}


class Place:
    """The folder in which a reader works, before the procedure begins."""

    def __init__(self, directory: Path, procedure: str) -> None:
        self.directory = directory
        self.file = directory / "keys.json"
        self.policy = _policy(_SHORT if procedure in WAITING else _LONG)
        self.env = {**clean_environment(self.policy), **_commands_on_path()}
        self.rotate()

    def rotate(self) -> None:
        subprocess.run(
            ["macp-auth", "keys", "rotate", self.file],
            check=True,
            capture_output=True,
            env=self.env,
            timeout=30,
        )

    def let_pass(self, seconds: int) -> None:
        """Let the keys be older than they are."""
        jwks = json.loads(self.file.read_text())
        for key in jwks["keys"]:
            key.update({name: key[name] - seconds for name in ("iat", "nbf", "exp") if name in key})
        self.file.write_text(json.dumps(jwks))


def _rotated(place: Place) -> None:
    place.rotate()


def _new_key_signs(place: Place) -> None:
    place.rotate()
    place.let_pass(_LONG + 1)


def _broken(place: Place) -> None:
    shutil.copy(place.file, f"{place.file}.backup")
    place.file.write_text(place.file.read_text()[:90])


def _open_to_others(place: Place) -> None:
    place.file.chmod(0o644)


def _lost(place: Place) -> None:
    place.file.unlink()


def _as_usual(_place: Place) -> None:
    """One key, which signs."""


BEFORE_START: dict[str, Callable[[Place], None]] = {
    "Routine rotation": _as_usual,
    "Emergency rotation": _as_usual,
    "Rollback before the new key signs": _rotated,
    "Rollback after the new key signs": _new_key_signs,
    "Back to the old key at once": _new_key_signs,
    "Algorithm migration": _as_usual,
    "The key file is broken": _as_usual,
    "The key file can't be read": _as_usual,
    "The key file is lost": _as_usual,
}
WHILE_IT_RUNS: dict[str, Callable[[Place], None]] = {
    "The key file is broken": _broken,
    "The key file can't be read": _open_to_others,
    "The key file is lost": _lost,
}


@pytest.fixture
def place(tmp_path: Path, procedure: str) -> Place:
    return Place(tmp_path, procedure)


@pytest.fixture
def reader(place: Place) -> Iterator[Terminal]:
    terminal = Terminal(place.directory, place.env)
    yield terminal
    terminal.close()


@pytest.fixture
def shell_tools() -> None:
    """What the page's commands call."""
    require_tools("bash", "curl")


@pytest.mark.usefixtures("shell_tools")
@pytest.mark.parametrize("procedure", BEFORE_START)
def test_a_procedure_does_what_the_page_shows(procedure: str, place: Place, reader: Terminal) -> None:
    """Every command of a procedure, in order, prints what the page shows in shape, and ends as it should."""
    BEFORE_START[procedure](place)
    signer = {"MACP_AUTH_SIGNER": "jwk-file", "MACP_AUTH_SIGNING_KEYS_FILE": str(place.file)}
    with Service(place.directory, {**place.policy, **signer}) as service:
        (place.directory / "service.log").symlink_to(service.log_path)
        (place.directory / "audit.log").symlink_to(service.audit_path)
        service.mint(sender="agent://risk")
        WHILE_IT_RUNS.get(procedure, _as_usual)(place)
        reader.run(f"export MACP_AUTH_SERVICE_URL={service.url}")
        for written, shown in steps(section(RUNBOOK, procedure)):
            _take(reader, written.replace("localhost:3200", f"localhost:{service.port}"), shown)
        assert service.mint()["token"]


def _take(reader: Terminal, commands: str, shown: Block | None) -> None:
    """Do one step."""
    if shown and (commands.startswith(_LOOKS) or shown.text.startswith(_ERROR)):
        _look_until_shown(reader, commands, shown)
    else:
        output = reader.run(commands)
        if shown:
            assert_as_shown(shown, output)


def _look_until_shown(reader: Terminal, command: str, shown: Block) -> None:
    deadline = time.monotonic() + _LOOK_SECONDS
    while True:
        status, output = reader.look(command)
        try:
            assert_as_shown(shown, without_log(output) if command.startswith("macp-auth") else output)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            assert status == (2 if shown.text.startswith(_ERROR) else 0), output
            return


def test_every_block_of_commands_belongs_to_a_procedure() -> None:
    """No command of the page is passed by: each is in a procedure that a test walks."""
    walked = [
        step
        for procedure in (DISPATCH, *BEFORE_START, *CALLERS_PROCEDURES, *VAULT_PROCEDURES)
        for step in steps(section(RUNBOOK, procedure))
    ]
    assert walked == steps(RUNBOOK)


def test_every_procedure_is_in_a_list() -> None:
    """A reader who knows the situation, the alert or the reason finds the procedure, under its own name."""
    lists = RUNBOOK.partition("## Before you begin")[0] + section(RUNBOOK, DISPATCH)
    listed = set(re.findall(r"\[([^]]+)\]\(#[^)]+\)", lists))
    headings = set(re.findall(r"^## (.*)$", RUNBOOK, re.MULTILINE))
    assert {*BEFORE_START, *CALLERS_PROCEDURES, *VAULT_PROCEDURES} <= headings
    assert headings - {"Before you begin", "Before you begin with Vault"} <= listed


# --- the pages about rotation ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", [ROTATION, REFERENCE], ids=["rotation", "reference"])
def test_a_reader_of_the_rotation_pages_gets_what_they_show(page: str, tmp_path: Path) -> None:
    """The commands print, with the default settings, what the page shows in shape."""
    reader = Terminal(tmp_path, {**clean_environment(), **_commands_on_path()})
    try:
        for commands, shown in steps(page):
            _take(reader, commands, shown)
    finally:
        reader.close()


def test_the_sums_of_the_page_are_the_codes() -> None:
    """Each sum stands on the page as the commands print it."""
    policy = policy_of({})
    sums = [policy.needed_lead(MACP_RUNTIME), policy.needed_lag(MACP_RUNTIME)]
    sums += [bound for bound in (policy.revocation_bound(MACP_RUNTIME),) if bound]
    sums += [bound for bound in (policy.blocked_revocation_bound(MACP_RUNTIME),) if bound]
    assert len(sums) == 4
    for each in sums:
        assert f"\n{each}\n" in REFERENCE
    assert f"{policy.timing.publish_lead} s" in section(REFERENCE, "Publish lead")


def test_every_term_has_a_row_with_its_seconds() -> None:
    """The tables of terms have the terms of the sums, in order, each with its default."""
    policy = policy_of({})
    terms = [*policy.needed_lead(MACP_RUNTIME).terms, *policy.needed_lag(MACP_RUNTIME).terms]
    assert [row[:2] for row in rows(NUMBERS)] == [[term.name, f"{term.seconds} s"] for term in terms]


def _row_of(verifier: Verifier) -> list[str]:
    cooldown = verifier.refetch_cooldown
    return [
        "until an unknown kid" if verifier.cache_ttl is None else f"{verifier.cache_ttl} s",
        "without end" if None in {verifier.stale_grace, verifier.cache_ttl} else f"{verifier.stale_grace} s",
        "does not fetch"
        if cooldown is None
        else "fetches"
        if cooldown == 0
        else f"fetches, at most every {cooldown} s",
        f"{verifier.fetch_timeout} s",
        f"{verifier.leeway} s",
    ]


def test_the_table_of_verifiers_is_the_codes() -> None:
    """The table has every profile, in order, with its numbers."""
    table = {
        plain(row[0]): [re.sub(r" \(.*\)", "", cell) for cell in row[2:]]
        for row in rows(section(REFERENCE, "How verifiers behave"))
    }
    assert table == {name: _row_of(verifier) for name, verifier in VERIFIERS.items()}
    assert list(table) == list(VERIFIERS)


def test_the_table_of_states_is_the_codes() -> None:
    """The page explains each state that a command shows."""
    assert [plain(row[0]) for row in rows(section(REFERENCE, "The states of a key"))] == list(State)
