"""The report: who got tokens, whatever else is in the log; and it says when it may lack some."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from macp_auth.entrypoints.audit.line import AuditLine, lost_line, timestamp
from macp_auth.entrypoints.audit.report import Question, report
from macp_auth.entrypoints.cli.root import root

NOON = 1_800_014_400  # 2027-01-15T12:00:00Z


def line(at: float, sender: str = "a", kid: str = "k1", ttl: int = 60, **of: Any) -> bytes:
    recorded = AuditLine(
        time=timestamp(at),
        event=of.get("event", "minted"),
        status=200,
        reason=None,
        request_id="r",
        caller=None,
        sender=sender,
        scopes={},
        ttl=ttl,
        exp=int(at) + ttl,
        kid=kid,
        token_sha256="0" * 64,
        cut=of.get("cut", ()),
    )
    return msgspec.json.encode(recorded) + b"\n"


def senders(lines: Sequence[bytes], **question: Any) -> list[tuple[str, int]]:
    return [(found.sender, found.tokens) for found in report(lines, Question(**question)).identities]


def test_an_identity_has_its_first_last_and_longest() -> None:
    """In whatever order the lines come, as from several workers."""
    lines = [line(NOON + 5), line(NOON, ttl=600), line(NOON + 9, "b"), line(NOON + 2)]
    first, second = report(lines, Question()).identities
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
        b'{"event":"signing key","kid":"k1","time":"x"}\n',
        b'{"event":{"minted":1}}\n',
        b"\n",
        line(NOON),
    ]
    answer = report(lines, Question(kid="k1"))
    assert [(found.sender, found.tokens) for found in answer.identities] == [("a", 1)]
    assert (answer.lost, answer.unreadable) == (0, 0)


def test_what_is_missing_is_said() -> None:
    """Half lines, text, and gaps that the service recorded later than the time asked for begins."""
    lines = [
        lost_line(3, NOON - 1),
        lost_line(4, NOON + 9),
        line(NOON),
        line(NOON)[:-40] + b"\n",
        b"[1]\n",
        b"x",
    ]
    answer = report(lines, Question(since=NOON, until=NOON + 1))
    assert (answer.lost, answer.unreadable) == (4, 3)


def test_a_cut_sender_is_marked_and_found() -> None:
    """It may stand for several identities."""
    lines = [line(NOON, "s" * 64, cut=("sender", "scopes")), line(NOON, "s" * 64)]
    assert senders(lines) == [("s" * 64, 1), ("s" * 64 + "…", 1)]
    assert senders(lines, sender="s" * 300) == [("s" * 64 + "…", 1)]


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
    done = run("-", stdin=line(NOON) + lost_line(7, NOON) + b"{\n")
    assert done.exit_code == 1
    assert "a  1 token\n" in done.stdout
    assert "7 lines" in done.stderr
    assert "1 lines can't be read" in done.stderr


@pytest.mark.parametrize(
    "args", [["-", "--since", "yesterday"], ["-", "--until", "2027-01-15T12:00"], ["missing"], []]
)
def test_the_command_refuses_what_it_can_t_understand(args: list[str]) -> None:
    """A time needs its zone, a file must be there."""
    assert run(*args).exit_code == 2
