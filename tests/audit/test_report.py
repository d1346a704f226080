"""The report: who got tokens, with anything else in the log, and whether it may be incomplete."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from macp_auth.adapters.audit.line import AuditLine, dropped_line, summary_line, timestamp
from macp_auth.adapters.audit.reading import Log
from macp_auth.adapters.audit.report import Fault, Question, Report, report
from macp_auth.entrypoints.cli.root import root

NOON = 1_800_014_400  # 2027-01-15T12:00:00Z


def line(at: float, sender: str = "a", kid: str = "k1", ttl: int = 60, **of: Any) -> bytes:
    recorded = AuditLine(
        time=timestamp(at),
        event=of.get("event", "minted"),
        status=200,
        reason=None,
        request_id="r",
        caller=of.get("caller"),
        sender=sender,
        scopes={},
        ttl=ttl,
        exp=int(at) + ttl,
        kid=kid,
        token_sha256="0" * 64,
        truncated=of.get("truncated", ()),
        method=of.get("method", msgspec.UNSET),
    )
    return msgspec.json.encode(recorded) + b"\n"


def asked(lines: Iterable[bytes], **question: Any) -> Report:
    return report([Log("audit.log", lines)], Question(**question))


def senders(lines: Iterable[bytes], **question: Any) -> list[tuple[str, int]]:
    return [(found.sender, found.tokens) for found in asked(lines, **question).identities]


def test_an_identity_has_its_first_last_and_longest() -> None:
    """With lines in any order, as from several workers."""
    lines = [line(NOON + 5), line(NOON, ttl=600), line(NOON + 9, "b"), line(NOON + 2)]
    first, second = asked(lines).identities
    assert (first.sender, first.tokens, first.exp) == ("a", 3, NOON + 600)
    assert (first.first, first.last) == (timestamp(NOON), timestamp(NOON + 5))
    assert (second.sender, second.tokens, second.exp) == ("b", 1, NOON + 69)


def test_a_question_narrows() -> None:
    """By key, by sender, by time, the ends included."""
    lines = [line(NOON), line(NOON + 1, "b", "k2"), line(NOON + 2, "c"), line(NOON + 2.001, "d")]
    assert senders(lines, kid="k1") == [("c", 1), ("d", 1), ("a", 1)]
    assert senders(lines, sender="b") == [("b", 1)]
    assert senders(lines, since=NOON + 1, until=NOON + 2) == [("c", 1), ("b", 1)]
    assert senders(lines, since=NOON + 3) == []


def test_only_minted_tokens_count() -> None:
    """Not refusals, and not the service's log, though it names keys too."""
    lines = [
        line(NOON, event="refused"),
        summary_line({"invalid-json": 10_000}, NOON, NOON + 10),
        b'{"event":"signing key","kid":"k1","time":"x"}\n',
        b'{"event":{"minted":1}}\n',
        b"\n",
        line(NOON),
    ]
    answer = asked(lines, kid="k1")
    assert [(found.sender, found.tokens) for found in answer.identities] == [("a", 1)]
    assert (answer.dropped, answer.faults) == (0, [])


def test_what_is_missing_is_said() -> None:
    """Half lines, text, and gaps that may be within the time that is asked for."""
    lines = [
        dropped_line(3, NOON - 9, NOON - 1),
        dropped_line(4, NOON - 9, NOON + 9),
        dropped_line(5, NOON + 1.5, NOON + 9),
        line(NOON),
        line(NOON)[:-40] + b"\n",
        b"[1]\n",
        b'{"sender":"\xff"}\n',
        b"x",
    ]
    answer = asked(lines, since=NOON, until=NOON + 1)
    assert answer.dropped == 4
    assert answer.faults == [Fault("audit.log", "unreadable lines: 4; the first is line 5")]


def test_a_truncated_sender_is_marked_and_found() -> None:
    """It may stand for several identities."""
    lines = [line(NOON, "s" * 64, truncated=("sender", "scopes")), line(NOON, "s" * 64)]
    assert senders(lines) == [("s" * 64, 1), ("s" * 64 + "…", 1)]
    assert senders(lines, sender="s" * 300) == [("s" * 64 + "…", 1)]


CALLED = [
    line(NOON, caller="playground", method="jwt"),
    line(NOON + 1, caller="ci", method="secret"),
    line(NOON + 2, "b", caller="192.0.2.7"),
    line(NOON + 3, "c", caller="ci", method="secret"),
    line(NOON + 4, "d", caller="ci"),
]


def test_a_question_narrows_to_a_caller() -> None:
    """Only if it was authenticated: an address is not one."""
    assert senders(CALLED, caller="ci") == [("c", 1), ("a", 1)]
    assert senders(CALLED, caller="192.0.2.7") == []


def test_the_command_shows_the_callers_where_there_are_any() -> None:
    """To find out what a stolen credential got."""
    shown = run("-", stdin=b"".join(CALLED)).stdout
    assert [text.strip() for text in shown.splitlines() if "by " in text] == ["by ci", "by ci, playground"]
    narrowed = run("-", "--json", "--caller", "playground", stdin=b"".join(CALLED)).stdout
    assert [identity["callers"] for identity in json.loads(narrowed)["identities"]] == [["playground"]]


def run(*args: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(root, ["audit", "report", *args], input=stdin)


def test_the_command_reads_files_compressed_ones_and_standard_input(tmp_path: Path) -> None:
    """All as one log."""
    (tmp_path / "audit.log").write_bytes(line(NOON))
    (tmp_path / "audit.log.1.gz").write_bytes(gzip.compress(line(NOON, "b")))
    files = [str(tmp_path / "audit.log"), str(tmp_path / "audit.log.1.gz"), "-"]
    done = run(*files, "--json", "--kid", "k1", "--since", "2027-01-15T13:00+01:00", stdin=line(NOON, "c"))
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert [identity["sender"] for identity in answer["identities"]] == ["a", "b", "c"]
    assert answer["identities"][0] == {
        "sender": "a",
        "tokens": 1,
        "first": "2027-01-15T12:00:00.000Z",
        "last": "2027-01-15T12:00:00.000Z",
        "exp": NOON + 60,
    }


def test_the_command_fails_on_an_incomplete_log() -> None:
    """With the answer all the same."""
    done = run("-", stdin=line(NOON) + dropped_line(7, NOON - 1, NOON) + b"{\n")
    assert done.exit_code == 1
    assert "a  1 token\n" in done.stdout
    assert done.stderr.splitlines() == [
        "INCOMPLETE: lines that the service could not write: 7",
        "INCOMPLETE: -: unreadable lines: 1; the first is line 3",
    ]


@pytest.mark.parametrize(
    "content",
    [b"", b'{"event":"signing key","kid":"k1","level":"info"}\n', b'{\n"keys":[]\n}', gzip.compress(b"")],
    ids=["empty", "the other log", "a JWK Set", "compressed"],
)
def test_a_file_that_is_no_audit_log_is_named(tmp_path: Path, content: bytes) -> None:
    """Even with a valid one: the wrong file does not prove that there were no tokens."""
    wrong, right = tmp_path / "wrong.log", tmp_path / "right.log"
    wrong.write_bytes(content)
    right.write_bytes(line(NOON, event="refused"))
    done = run(str(wrong), str(right))
    assert done.exit_code == 1
    assert f"INCOMPLETE: {wrong}: no audit lines" in done.stderr
    assert str(right) not in done.stderr


def test_what_gzip_compressed_is_recognised_by_its_content(tmp_path: Path) -> None:
    """On standard input and under any name; and what is only called so is read as it is."""
    (tmp_path / "audit.log.1").write_bytes(gzip.compress(line(NOON, "b")))
    (tmp_path / "audit.log.gz").write_bytes(line(NOON))
    done = run(
        *(str(file) for file in tmp_path.iterdir()), "-", "--json", stdin=gzip.compress(line(NOON, "c"))
    )
    assert done.exit_code == 0, done.output
    assert [identity["sender"] for identity in json.loads(done.stdout)["identities"]] == ["a", "b", "c"]


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    """No token is counted double, and standard input has only one end."""
    (tmp_path / "audit.log").write_bytes(line(NOON))
    done = run(*[str(tmp_path / "audit.log"), "-"] * 2, stdin=line(NOON, "b"))
    assert done.exit_code == 0, done.output
    assert "Identities: 2. Tokens: 2." in done.stdout


def damaged(*, end: slice = slice(None), flipped: int | None = None) -> bytes:
    """A compressed log of two lines and then much else, cut to ``end``, with a byte turned over."""
    content = bytearray(gzip.compress(line(NOON) + b"".join(line(NOON, f"{at}") for at in range(999)))[end])
    if flipped is not None:
        content[flipped] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    "content", [damaged(end=slice(-100)), damaged(flipped=-6), damaged(flipped=3), damaged(end=slice(2))]
)
def test_a_damaged_file_is_named_and_read_as_far_as_it_goes(tmp_path: Path, content: bytes) -> None:
    """It was cut off, its checksum is wrong, or its header: one line of text, and the other file's answer."""
    (tmp_path / "audit.log.1.gz").write_bytes(content)
    done = run(str(tmp_path / "audit.log.1.gz"), "-", stdin=line(NOON, "other"))
    assert done.exit_code == 1
    assert "other  1 token\n" in done.stdout
    assert f"INCOMPLETE: {tmp_path}/audit.log.1.gz: cannot read past line " in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_what_comes_before_the_damage_counts(tmp_path: Path) -> None:
    """Most of a file that was cut off at its end."""
    (tmp_path / "audit.log.1.gz").write_bytes(damaged(end=slice(-100)))
    done = run(str(tmp_path / "audit.log.1.gz"), "--sender", "a")
    assert "a  1 token\n" in done.stdout


def test_a_distance_is_counted_from_now() -> None:
    """Two hours ago is -2h."""
    lines = line(time.time() - 3 * 3600) + line(time.time() - 3600, "b")
    assert "Identities: 1. Tokens: 1." in run("-", "--since", "-2h", stdin=lines).stdout
    assert "Identities: 1. Tokens: 1." in run("-", "--until", "-2h", stdin=lines).stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-", "--since", "yesterday"], "--since"),
        (["-", "--until", "2027-01-15T12:00"], "--until"),
        (["-", "--since", "+2h"], "in the future"),
        (["-", "--since", "2026-01-02T00:00Z", "--until", "2026-01-01T00:00Z"], "later than --until"),
        (["-", "--since", "0001-01-01T00:00+14:00"], "century"),
        (["missing"], "missing"),
        ([], "FILE"),
    ],
)
def test_the_command_refuses_what_it_can_t_understand(args: list[str], message: str) -> None:
    """A time needs its zone, a distance leads to the past, a file must be there."""
    done = run(*args)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_no_character_of_a_log_moves_the_terminal_that_reads_it() -> None:
    """Anyone may have written a log: its texts are escaped, and a name stays on its line."""
    hidden = "\x9b1A\x7f\u202e\u2028\nb  9 tokens"
    shown = run("-", stdin=line(NOON, hidden)).stdout
    assert shown.splitlines()[0] == "\\u009b1A\\u007f\\u202e\\u2028\\u000ab  9 tokens  1 token"
    machine = run("-", "--json", stdin=line(NOON, hidden)).stdout
    assert not set("\x9b\x7f\u202e\u2028") & set(machine)
    assert json.loads(machine)["identities"][0]["sender"] == hidden
