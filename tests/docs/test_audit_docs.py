"""docs/audit.md: the fields, the words and the numbers are the code's; the commands answer what they say."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import macp_auth.entrypoints.composition  # noqa: F401 - brings in every module that defines an error
from macp_auth.adapters import standard_error
from macp_auth.adapters.audit import log, waiting, writer
from macp_auth.adapters.audit.chain import HEAD_EVENT, MAX_MEMBERS_BYTES, Chain, linked_line
from macp_auth.adapters.audit.line import (
    DROPPED,
    MAX_LINE_BYTES,
    MAX_SENDER_CHARS,
    REFUSED_SUMMARY,
    SHORT_SENDER_CHARS,
    UNKNOWN_SCOPES,
    AuditLine,
    DroppedLines,
    RefusedSummary,
)
from macp_auth.adapters.audit.verification import Kind
from macp_auth.domain.errors import InvalidRequest
from macp_auth.entrypoints import logs
from macp_auth.entrypoints.http import errors
from tests.docs.pages import blocks, plain, read, rows, section
from tests.docs.terminal import Terminal, assert_as_shown, same_shape, steps
from tools.support.programs import require_tools
from tools.support.service import clean_environment

PAGE = read("docs/audit.md")
TOKEN = "head.payload.signature"


def record(time: str, sender: str | None, *, kid: str | None = "key-2026-11", **of: Any) -> dict[str, Any]:
    fields = {each.name: None for each in msgspec.structs.fields(AuditLine) if each.required}
    given: dict[str, Any] = {
        "time": time,
        "event": "minted",
        "sender": sender,
        "kid": kid,
        "status": 200,
        "truncated": [],
    }
    return {**fields, **given, **of}


AUDIT_LOG = [
    record("2026-11-21T23:59:59.999Z", "agent://before", exp=1795305899),
    record("2026-11-22T09:15:00.250Z", "agent://risk", exp=1795339200),
    {"event": "signing key", "kid": "key-2026-11", "level": "info"},
    record("2026-11-22T10:00:02.700Z", "agent://pricing", exp=1795341902),
    record("2026-11-22T11:00:00.000Z", "agent://other-key", kid="key-2026-10", exp=1795345500),
    record(
        "2026-11-22T12:00:00.000Z", "agent://refused", kid=None,
        event="refused", reason="invalid-ttl", caller="192.0.2.7",
    ),
    record(
        "2026-11-22T22:48:44.031Z", "agent://risk", exp=1795388324,
        token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest(),
    ),
    record("2026-11-23T00:00:00.001Z", "agent://after", exp=1795392300),
]  # fmt: skip


def _linked(chain: Chain, entry: dict[str, Any]) -> bytes:
    line = json.dumps(entry).encode() + b"\n"
    if "status" not in entry:
        return line  # of the other log
    [linked] = chain.link([line], MAX_LINE_BYTES)
    chain.written(1)
    return linked


@pytest.fixture
def jq() -> None:
    """What the page's commands call."""
    require_tools("jq", "sha256sum")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A shell beside an audit log."""
    chain = Chain()
    (tmp_path / "audit.log").write_bytes(b"".join(_linked(chain, entry) for entry in AUDIT_LOG))
    head = {"event": HEAD_EVENT, **msgspec.to_builtins(chain.head)}
    (tmp_path / "service.log").write_text(json.dumps(head) + "\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    running = Terminal(tmp_path, clean_environment({"TOKEN": TOKEN, "PATH": path}))
    yield running
    running.close()


def answer(terminal: Terminal, part: str) -> str:
    """What the one command of the page that has ``part`` prints."""
    [command] = [block.text for block in blocks(PAGE) if block.language == "sh" and part in block.text]
    return terminal.run(command)


def test_the_report_answers_as_shown(terminal: Terminal) -> None:
    """Who got what from a key, between two moments."""
    [(command, shown)] = [(command, shown) for command, shown in steps(PAGE) if "audit report" in command]
    assert shown
    output = terminal.run(command)
    assert_as_shown(shown, output)
    assert re.findall(r"agent://\S+", output) == ["agent://risk", "agent://pricing"]


def test_a_whole_log_is_verified_as_shown(terminal: Terminal) -> None:
    """Against the heads of the service log."""
    [(command, shown)] = [(command, shown) for command, shown in steps(PAGE) if "audit verify" in command]
    assert shown
    assert_as_shown(shown, terminal.run(command))


def test_a_removed_line_is_found_as_shown(terminal: Terminal) -> None:
    """The service log's own line, which is the third, is no line of the chain."""
    [shown] = [block for block in blocks(PAGE) if ": missing: writer" in block.text]
    status, output = terminal.look(
        "grep -v signing audit.log >a; sed 3d a >audit.log; macp-auth audit verify audit.log"
    )
    assert status == 1
    assert same_shape(shown.text.strip(), output.splitlines()[0])


def test_the_findings_are_named() -> None:
    """All of them, in their order."""
    documented = [plain(row[0]) for row in rows(section(PAGE, "Is the log whole?"))]
    linked = json.loads(linked_line(b'{"time":""}\n', "w", 1, None))
    assert documented == [*Kind, *(name for name in linked if name != "time")]


@pytest.mark.usefixtures("jq")
def test_the_sha256_can_be_made_by_hand(terminal: Terminal) -> None:
    """With usual tools."""
    [command] = re.findall(r"`(sed -n 3p [^`]*)`", PAGE)
    terminal.run("grep -v signing audit.log >a; mv a audit.log")
    made = terminal.run(command).split()[0]
    assert made == json.loads(terminal.run("sed -n 4p audit.log"))["prev"]


@pytest.mark.usefixtures("jq")
def test_jq_answers_the_same(terminal: Terminal) -> None:
    """Without a command of ours."""
    counts = [tuple(line.split()) for line in answer(terminal, "| .sender'").splitlines()]
    assert counts == [("1", "agent://pricing"), ("2", "agent://risk")]


@pytest.mark.usefixtures("jq")
def test_jq_finds_until_when_a_key_s_tokens_live(terminal: Terminal) -> None:
    """The largest exp of that kid."""
    assert answer(terminal, "todate").strip() == '"2026-11-23T00:05:00Z"'


@pytest.mark.usefixtures("jq")
def test_jq_finds_whose_a_token_is(terminal: Terminal) -> None:
    """By the fingerprint that a shell can make."""
    found = json.loads(answer(terminal, "--arg sha"))
    assert (found["sender"], found["time"]) == ("agent://risk", "2026-11-22T22:48:44.031Z")


@pytest.mark.usefixtures("jq")
def test_jq_counts_refusals(terminal: Terminal) -> None:
    """By caller and reason."""
    assert answer(terminal, "@tsv").split() == ["1", "192.0.2.7", "invalid-ttl"]


def test_the_table_has_the_fields_of_a_line() -> None:
    """All of them, in their order, and no other."""
    documented = [plain(row[0]) for row in rows(section(PAGE, "The fields"))]
    other_events = [DROPPED, REFUSED_SUMMARY]
    assert documented == [*AuditLine.__struct_fields__, *other_events]


@pytest.mark.parametrize(("event", "line"), [(DROPPED, DroppedLines), (REFUSED_SUMMARY, RefusedSummary)])
def test_the_fields_of_the_other_events_are_named(event: str, line: type[msgspec.Struct]) -> None:
    """Beside the event itself."""
    [fields] = [row[1] for row in rows(section(PAGE, "The fields")) if plain(row[0]) == event]
    assert re.findall(r"`(\w+)`", fields) == [name for name in line.__struct_fields__ if name != "event"]


def test_every_reason_of_a_refusal_is_named() -> None:
    """Those that the code has, and no other; a signer's are on the API page."""
    [sentence] = re.findall(r"The words of `reason` are (.*?), and for a signer", PAGE, re.DOTALL)
    coded = {error.reason for error in InvalidRequest.__subclasses__()} | {
        *errors.REASONS.values(),
        errors.BROWSER,
    }
    assert "callers.md#reasons" in sentence  # a test of that page compares them
    assert set(re.findall(r"`([a-z-]+)`", sentence)) == coded | {errors.reason_word(KeyError())}


@pytest.mark.parametrize(
    "text",
    [
        f"at most {MAX_LINE_BYTES} bytes",
        f"over {MAX_SENDER_CHARS} characters",
        f"cut to {SHORT_SENDER_CHARS} characters",
        f'["{UNKNOWN_SCOPES}"]',
        f"up to {1000 * writer.GATHER_SECONDS:.0f} ms",
        f"{writer.MINTED_BYTES // 2**20} MiB, some",
        f"lines of refusals | {writer.REFUSED_BYTES // 2**20} MiB",
        f"{waiting.MAX_NAMES} reasons",
        f"the first {log.WHOLE_REFUSALS} in {writer.SUMMARY_SECONDS:.0f} seconds",
        f"{logs.LINES} in {logs.LINES_SECONDS} seconds",
        f"{logs.MAX_TEXT_CHARS} characters",
        f"{logs.MAX_LINE_BYTES} bytes",
        f"standard error | {standard_error.MAX_WAITING} |",
        f"for {standard_error.PATIENCE_SECONDS} s at most",
        f"again for {standard_error.IMPATIENCE_SECONDS:.0f} s",
        writer.TROUBLE,
        writer.DROPPED,
        writer.RECOVERED,
        f"wait for up to {log.WRITE_SECONDS:.0f} s",
        HEAD_EVENT,
        f"{MAX_MEMBERS_BYTES} bytes",
    ],
)
def test_numbers_and_messages_are_the_codes(text: str) -> None:
    """To the letter."""
    assert text in " ".join(PAGE.split())
