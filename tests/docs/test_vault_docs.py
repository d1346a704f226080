"""docs/vault.md does what it shows on a real OpenBao, and its table of faults is the code's."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from macp_auth.adapters.signers import vault_transit
from macp_auth.adapters.signers.vault_transit.signer import LIMITS
from macp_auth.adapters.signers.vault_transit.transport import _MEANINGS, TokenNotAccepted
from macp_auth.application.readiness import OWN_REASONS
from macp_auth.domain import errors
from macp_auth.domain.policy import MACP_RUNTIME
from macp_auth.entrypoints.cli.inspection import policy_of
from tests.docs.pages import ROOT, Block, blocks, plain, read, rows, section
from tests.docs.terminal import Terminal, assert_as_shown, steps
from tests.docs.vault_procedures import vault_environment, without_log
from tests.support.openbao_auth import FakeKubernetes, JWTIssuer
from tools.support.service import free_port
from tools.support.tls import make_certificates
from tools.support.vault_environment import POLICY

pytestmark = pytest.mark.slow  # each page, on a Vault of its own

PAGE = read("docs/vault.md")
TEN = "From nothing to a token"
_LOOK_SECONDS = 20  # a refresh takes 1 s here


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Terminal]:
    port = free_port()
    own = {"PORT": str(port), "MACP_AUTH_SERVICE_URL": f"http://localhost:{port}"}
    env = {"MACP_AUTH_KEY_REFRESH_SECONDS": "1", **own}
    terminal = Terminal(tmp_path, vault_environment(tmp_path, **env))
    yield terminal
    terminal.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeKubernetes]:
    """A Kubernetes, and the files that the page speaks of."""
    with FakeKubernetes(make_certificates(tmp_path)) as cluster:
        (tmp_path / "ca.pem").write_text(cluster.ca_pem)
        (tmp_path / "reviewer.jwt").write_text(cluster.token(account="reviewer"))
        (tmp_path / "pod.jwt").write_text(cluster.token())
        issuer = JWTIssuer()
        (tmp_path / "issuer.pem").write_text(issuer.public_pem)
        (tmp_path / "service.jwt").write_text(issuer.issue())
        yield cluster


@pytest.mark.timeout(240)
def test_a_reader_who_follows_the_page_gets_what_it_shows(reader: Terminal, cluster: FakeKubernetes) -> None:
    """Every command, from nothing to a token and on to the last section, prints what the page shows."""
    here = {
        "127.0.0.1:8200": f"127.0.0.1:{free_port()}",
        "localhost:3200": f"localhost:{reader.environment()['PORT']}",
        "https://kubernetes.example:6443": cluster.server.url,
    }
    for written, shown in steps(PAGE):
        commands = written
        for there, instead in here.items():
            commands = commands.replace(there, instead)
        _take(reader, commands, shown)


def _take(reader: Terminal, commands: str, shown: Block | None) -> None:
    deadline = time.monotonic() + _LOOK_SECONDS
    while True:
        output = without_log(reader.run(commands))
        try:
            if shown:
                assert_as_shown(shown, output)
        except AssertionError:
            if not commands.startswith("curl ") or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def test_the_first_section_has_ten_commands() -> None:
    """As the page says, and each has its number."""
    assert len(steps(section(PAGE, TEN))) == 10
    assert re.findall(r"^(\d+)\. ", section(PAGE, TEN), re.MULTILINE) == [str(n) for n in range(1, 11)]


def test_the_policy_is_the_one_that_the_signer_is_tested_with() -> None:
    """No permission is missing on the page, and none is given for nothing."""
    wanted = POLICY.format(key="macp").strip()
    assert [block.text.strip() for block in blocks(PAGE) if block.language == "hcl"] == [wanted]
    given = [found.strip() for found in re.findall(r"write macp-auth - <<'END'\n(.*?)END", PAGE, re.DOTALL)]
    assert given == [wanted] * 2


def test_the_numbers_are_the_codes() -> None:
    """Limits and sums stand on the page as the code has them."""
    table = {row[0]: row[1] for row in rows(section(PAGE, "Time limits"))}
    assert table["signatures in one call"] == str(LIMITS.batch)
    assert table["signing calls in progress"].startswith(f"{LIMITS.calls} for")
    assert table["requests that wait for a signature"].startswith(f"{LIMITS.requests} for")
    policy = policy_of({})
    for seconds in (
        policy.timing.publish_lead,
        policy.timing.publish_lead + policy.timing.retire_lag,
        policy.revocation_bound(MACP_RUNTIME).seconds,  # type: ignore[union-attr]  # the runtime has bounds
        policy.blocked_revocation_bound(MACP_RUNTIME).seconds,  # type: ignore[union-attr]  # the same
    ):
        assert f"{seconds} s" in PAGE


# --- what each fault looks like -------------------------------------------------------------------------

FAULTS = rows(section(PAGE, "What each fault looks like"))
_SOURCES = sorted(Path(vault_transit.__path__[0]).glob("*.py"))
_CHECKERS = [
    ROOT / "src/macp_auth" / name
    for name in ("adapters/verifying.py", "adapters/well_formed.py", "application/readiness.py")
]
_KINDS: dict[str, type[errors.SignerError]] = {
    **{
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.SignerError)
    },
    "TokenNotAccepted": TokenNotAccepted,
}


def _reasons_raised(source: str) -> set[str]:
    """The reasons of the errors that a module makes by name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _KINDS:
            given = [word.value for word in node.keywords if word.arg == "reason"]
            if not given:
                found.add(_KINDS[node.func.id].default_reason)
            elif isinstance(given[0], ast.Constant):
                found.add(str(given[0].value))
    return found


def _reasons() -> set[str]:
    raised = set().union(*(_reasons_raised(path.read_text(encoding="utf-8")) for path in _SOURCES))
    meant = {reason or kind.default_reason for kind, reason, _ in _MEANINGS.values()}
    return raised | meant | {errors.WrongSignature.default_reason} | set(OWN_REASONS)


def test_every_reason_that_the_signer_can_give_is_a_row() -> None:
    """And no row is left of one that is gone; each says what to do."""
    assert sorted(plain(row[0]) for row in FAULTS) == sorted(_reasons())
    assert all(all(row) for row in FAULTS)


def test_the_reasons_of_a_module_are_found() -> None:
    """With a word of its own, by its kind, and not where it is another error's."""
    source = (
        "SignerUnavailable('a', reason='b'); SignerRefused('c'); SignerUnavailable('d', reason=error.reason)"
    )
    assert _reasons_raised(source) == {"b", "refused"}


def _texts(node: Any) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in each.values)
        elif isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield re.sub(r"\{\w+\}", "{}", each.value)


def test_every_detail_of_the_table_is_a_text_of_the_code() -> None:
    """What the log says can be searched for on the page."""
    sources = [*_SOURCES, *_CHECKERS, ROOT / "src/macp_auth/domain/errors.py"]
    texts = [text for path in sources for text in _texts(ast.parse(path.read_text(encoding="utf-8")))]
    for row in FAULTS:
        for detail in re.findall(r"`([^`]+)`", row[2]):
            assert detail == "permission denied" or any(detail in text for text in texts), detail


def test_the_reasons_that_are_tried_again_are_the_codes() -> None:
    """The page names those that a request waits for."""
    from macp_auth.adapters.signers.vault_transit import signer  # noqa: PLC0415 - one name of it, and private

    sentence = re.search(r"A call that fails for (.*?) is\s+tried again", PAGE, re.DOTALL)
    assert sentence
    assert set(re.findall(r"`([a-z-]+)`", sentence[1])) == signer._TRANSIENT
