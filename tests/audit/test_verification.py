"""What is missing, changed or out of order in an audit log is found, with file, line and writer."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from macp_auth.adapters.audit.chain import HEAD_EVENT, Chain, digest, linked_line
from macp_auth.adapters.audit.line import audit_line, dropped_line, summary_line
from macp_auth.adapters.audit.reading import Log
from macp_auth.adapters.audit.report import Question, report
from macp_auth.adapters.audit.verification import Verification, verify
from macp_auth.entrypoints.cli.root import root
from tests.audit.test_line import AT, attempt, minted

Lines = list[bytes]


class Written:
    """The lines of one writer, and its heads."""

    def __init__(self, name: str, count: int = 10) -> None:
        chain = Chain()
        self.writer = chain.head.writer
        events = (
            msgspec.structs.replace(attempt(minted(f"agent://{name}-{number}")), at=AT + number)
            for number in range(count)
        )
        self.lines = chain.link(map(audit_line, events), 2**20)
        chain.written(count)

    def head(self, seq: int) -> bytes:
        """The line of the service log when ``seq`` lines were written."""
        of = {"writer": self.writer, "seq": seq, "sha256": digest(self.lines[seq - 1])}
        return json.dumps({"event": HEAD_EVENT, **of, "level": "info"}).encode() + b"\n"


A, B = Written("a"), Written("b")


def checked(*files: Sequence[bytes], log: Sequence[bytes] = (), partial: bool = False) -> Verification:
    logs = [Log(f"{number}.log", lines) for number, lines in enumerate(files)]
    return verify(logs, [Log("service.log", log)] if log else [], partial=partial)


def found(*files: Sequence[bytes], log: Sequence[bytes] = (), partial: bool = False) -> list[tuple[str, ...]]:
    """Each finding as its kind, its place, and whose it is."""
    names = {A.writer: "A", B.writer: "B", None: "-"}
    return [
        (str(each.kind), f"{each.file}:{each.line}", names[each.writer])
        for each in checked(*files, log=log, partial=partial).findings
    ]


def interleaved() -> Lines:
    return [line for pair in zip(A.lines, B.lines, strict=True) for line in pair]


def without(lines: Lines, *indexes: int) -> Lines:
    return [line for index, line in enumerate(lines) if index not in indexes]


def changed(lines: Lines, index: int) -> Lines:
    return [*lines[:index], lines[index].replace(b"agent://", b"agent:/x"), *lines[index + 1 :]]


def rewritten(lines: Lines, start: int) -> Lines:
    """The lines with their chain made again from ``start`` on, as those who can write the file can do."""
    made = lines[:start]
    for line in lines[start:]:
        record = line[: line.rindex(b',"writer":"')] + b"}\n"
        prev = digest(made[-1]) if made else None
        made.append(linked_line(record, A.writer, len(made) + 1, prev))
    return made


def test_a_whole_log_is_whole() -> None:
    """One writer or two in a file, in two files in any order, with heads and without."""
    heads = [A.head(4), B.head(10), A.head(9)]
    assert found(A.lines, log=heads[:1]) == []
    assert found(interleaved(), log=heads) == []
    assert found(A.lines[5:], B.lines[3:], A.lines[:5], B.lines[:3], log=heads) == []
    assert found([*interleaved()[7:], b"\n"], interleaved()[:7]) == []


def test_the_writers_are_named_with_what_is_covered() -> None:
    """The lines after the last head are not."""
    ours, theirs = sorted((A, B), key=lambda each: each.writer)
    result = checked(ours.lines, theirs.lines[:3], log=[ours.head(7), ours.head(2)])
    assert [(each.writer, each.lines, each.first, each.last, each.head) for each in result.writers] == [
        (ours.writer, 10, 1, 10, 7),
        (theirs.writer, 3, 1, 3, None),
    ]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([without(A.lines, 0)], [("missing", "0.log:1", "A")]),
        ([without(A.lines, 3)], [("missing", "0.log:4", "A")]),
        ([without(A.lines, 3, 4, 7)], [("missing", "0.log:4", "A"), ("missing", "0.log:6", "A")]),
        ([without(interleaved(), 5)], [("missing", "0.log:7", "B")]),
        ([A.lines[5:], A.lines[:3]], [("missing", "0.log:1", "A")]),
        ([changed(A.lines, 0)], [("changed", "0.log:1", "A")]),
        ([changed(A.lines, 8)], [("changed", "0.log:9", "A")]),
        ([A.lines[5:], changed(A.lines[:5], 4)], [("changed", "1.log:5", "A")]),
        ([[*A.lines[:4], A.lines[5], A.lines[4], *A.lines[6:]]], [("out-of-order", "0.log:5", "A")]),
        ([[*A.lines[5:], *A.lines[:5]]], [("out-of-order", "0.log:1", "A")]),
        ([[*A.lines[:4], A.lines[3], *A.lines[4:]]], [("duplicate", "0.log:5", "A")]),
        ([A.lines, A.lines[2:5]], [("duplicate", "1.log:1", "A")]),
        ([A.lines[:6], A.lines[4:]], [("duplicate", "1.log:1", "A")]),
        ([[*A.lines, b'{"time":"2027-01-15T08:0\n']], [("unreadable", "0.log:11", "-")]),
        ([[*A.lines[:9], A.lines[9][:-30]]], [("unreadable", "0.log:10", "-")]),
        ([[*A.lines, b"[1]\n", b'{"\xff"}\n']], [("unreadable", "0.log:11", "-")]),
        ([[*A.lines, audit_line(attempt(minted()))]], [("no-chain", "0.log:11", "-")]),
        ([[dropped_line(1, AT, AT), summary_line({}, AT, AT)]], [("no-chain", "0.log:1", "-")]),
        ([A.lines, []], [("no-lines", "1.log:None", "-")]),
    ],
)
def test_each_tampering_is_found_without_heads(
    files: list[Lines], expected: list[tuple[str, str, str]]
) -> None:
    """Where the chain itself shows it."""
    assert sorted(found(*files)) == sorted(expected)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([A.lines[:6]], [("truncated", "0.log:6", "A")]),
        ([A.lines[:3], A.lines[3:6]], [("truncated", "1.log:3", "A")]),
        ([changed(A.lines, 9)], [("not-as-logged", "0.log:10", "A")]),
        (
            [rewritten(without(A.lines, 2), 2)],
            [("not-as-logged", "0.log:5", "A"), ("truncated", "0.log:9", "A")],
        ),
        ([rewritten(changed(A.lines, 7), 8)], [("not-as-logged", "0.log:10", "A")]),
        ([B.lines], [("missing", "service.log:1", "A")]),
    ],
)
def test_what_only_a_head_shows(files: list[Lines], expected: list[tuple[str, str, str]]) -> None:
    """A file that was cut off, a chain that was made again, a writer without any line."""
    if files != [B.lines]:
        assert found(*files) == []
    heads = [A.head(5), A.head(10)]
    if files == [B.lines]:
        heads = heads[1:]
    assert sorted(found(*files, log=heads)) == sorted(expected)


def test_lines_after_the_last_head_are_not_covered() -> None:
    """Their removal and their change show nothing."""
    assert found(A.lines[:8], log=[A.head(8)]) == []
    assert found(rewritten(changed(A.lines, 9), 9), log=[A.head(8)]) == []


def test_older_files_may_be_left_out_on_purpose() -> None:
    """Where the log is kept for a time; but nothing between or after."""
    heads = [A.head(2), A.head(9), B.head(10)]
    assert found(A.lines[5:], log=heads, partial=True) == []
    assert found(A.lines[5:], log=heads[:2]) == [("missing", "0.log:1", "A")]
    assert found(without(A.lines[5:], 1), partial=True) == [("missing", "0.log:2", "A")]
    assert found(A.lines[5:8], log=heads[:2], partial=True) == [("truncated", "0.log:3", "A")]


def test_two_heads_that_differ_are_found() -> None:
    """One of them is forged."""
    forged = A.head(5).replace(b'"seq": 5', b'"seq": 6')
    assert found(A.lines, log=[A.head(6), forged]) == [("not-as-logged", "service.log:2", "A")]


def test_a_log_without_heads_covers_nothing() -> None:
    """It may be another log."""
    assert found(A.lines, log=[b'{"event":"ready"}\n']) == [("no-lines", "service.log:None", "-")]


@pytest.mark.parametrize("cut", [1, 30, 200, -90, -30, -2])
@pytest.mark.parametrize("others", [0, 2])
def test_half_a_line_before_the_whole_one_is_a_note(cut: int, others: int) -> None:
    """A full disk took half; a line of more importance may have been written before it was tried again."""
    whole = A.lines[5]
    half = linked_line(whole[: whole.rindex(b',"writer":"')] + b"}\n", A.writer, 6 - others, "0" * 64)[:cut]
    lines = [*A.lines[: 5 - others], half + b"\n", *A.lines[5 - others :]]
    result = checked(lines)
    assert result.findings == []
    [note] = result.notes
    assert note.startswith(f"0.log:{6 - others}: half a line")


@pytest.mark.parametrize("cut", [300, -2, -1])
def test_a_line_that_was_appended_to_half_a_line_is_read(cut: int) -> None:
    """Another worker was killed while it wrote; its last line may even be whole but for its end."""
    lines = [*A.lines[:9], A.lines[9][:cut] + B.lines[0], *B.lines[1:]]
    assert found(lines) == ([] if cut == -1 else [("unreadable", "0.log:10", "-")])
    answer = report([Log("0.log", lines)], Question())
    assert sum(each.tokens for each in answer.identities) == (20 if cut == -1 else 19)


def test_no_content_of_a_line_looks_like_another_line() -> None:
    """Scopes may hold an object that begins like one, in a line that was cut or glued."""
    inner = {"time": "2027-01-15T08:00:00.250Z", "event": "minted", "writer": "w", "seq": 1, "prev": None}
    tricky = audit_line(attempt(minted(scopes={"x": inner, "y": json.dumps(inner)})))
    chain = Chain()
    [line] = chain.link([tricky], 4096)
    assert checked([line]).findings == []
    assert [each.kind for each in checked([*A.lines, line[:-3] + b"\n"]).findings] == ["unreadable"]
    assert checked([A.lines[0][:50] + line]).writers[0].writer == chain.head.writer


def test_a_hostile_file_takes_no_time() -> None:
    """Whatever is in it."""
    begun = b'{"time":"' * 200_000 + b"\n"
    kinds = [
        each.kind
        for each in checked([*A.lines, begun, *[b'{"time":"%d\n' % n for n in range(5000)]]).findings
    ]
    assert kinds == ["unreadable"]
    odd = [b'{"event":"minted","writer":"w","seq":%d,"prev":null}\n' % -n for n in range(1000)]
    assert {each.kind for each in checked(odd).findings} == {"no-lines"}


def test_a_report_says_that_lines_are_missing() -> None:
    """Between the tokens of the time that is asked for, or before them."""

    def faults(lines: Lines, since: float | None = None, until: float | None = None) -> list[str]:
        answer = report([Log("audit.log", lines)], Question(since=since, until=until))
        return [fault.text for fault in answer.faults]

    def missing(first: int, last: int, line: int) -> str:
        lines = f"line {first} is" if first == last else f"lines {first} to {last} are"
        return f"line {line}: writer {A.writer}: {lines} missing before this one"

    gap = without(A.lines, 3, 4)
    assert faults(A.lines) == []
    assert faults(gap) == [missing(4, 5, 4)]
    assert faults(gap, since=AT + 5) == [missing(4, 5, 4)]  # to the millisecond, it may be of this one
    assert faults(gap, since=AT + 5.001) == []
    assert faults(gap, until=AT + 1.999) == []
    assert faults(A.lines[5:]) == [missing(1, 5, 1)]
    assert faults(A.lines[5:], since=AT + 6) == []
    [repeated] = faults([*A.lines, A.lines[3]])
    assert "line 4 is repeated from here" in repeated
    [different] = faults(changed(A.lines, 4))
    assert "line 5 was changed" in different
    assert faults([audit_line(attempt(minted()))]) == []  # of an earlier version


def run(*args: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(root, ["audit", "verify", *args], input=stdin)


def files_of(directory: Path, **contents: Lines) -> list[str]:
    paths = []
    for name, lines in contents.items():
        (directory / name).write_bytes(b"".join(lines))
        paths.append(str(directory / name))
    return paths


def test_the_command_is_content_with_a_whole_log(tmp_path: Path) -> None:
    """Compressed files and standard input included; and it says what is not covered."""
    old, log = files_of(tmp_path, old=[gzip.compress(b"".join(A.lines[:5]))], service=[A.head(9)])
    done = run("-", old, "--log", log, stdin=b"".join(A.lines[5:]))
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [f"writer {A.writer}: lines 1 to 10, covered up to 9", "Findings: 0."]
    alone = run("-", stdin=b"".join(A.lines))
    assert alone.exit_code == 0
    assert "Without --log, nothing shows that a file was cut off" in alone.stdout


def test_the_command_names_what_it_finds(tmp_path: Path) -> None:
    """And exits 1."""
    path, log = files_of(tmp_path, audit=without(A.lines, 3)[:7], service=[A.head(9)])
    done = run(path, "--log", log)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[:2] == [
        f"{path}:4: missing: writer {A.writer}: line 4 is missing before this one",
        f"{path}:7: truncated: writer {A.writer}: line 9 is missing after this one: {log}:1 has the last",
    ]
    machine = run(path, "--log", log, "--json")
    assert machine.exit_code == 1
    answer = json.loads(machine.stdout)
    assert answer["findings"][0] == {
        "kind": "missing",
        "file": path,
        "line": 4,
        "writer": A.writer,
        "text": "line 4 is missing before this one",
    }
    assert answer["writers"] == [{"writer": A.writer, "lines": 7, "first": 1, "last": 8, "head": 9}]
    assert run(path, "--log", log, "--partial").exit_code == 1


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """As far as it can be read, it is checked."""
    (path,) = files_of(tmp_path, audit=[gzip.compress(b"".join(A.lines))[:-5]])
    done = run(path)
    assert done.exit_code == 1
    assert f"{path}:10: damaged: cannot read past line 10" in done.stdout


@pytest.mark.parametrize("args", [[], ["missing"], ["-", "--log", "missing"], ["-", "--lgo", "x"]])
def test_the_command_refuses_what_it_can_t_understand(args: list[str]) -> None:
    """A file must be there."""
    assert run(*args).exit_code == 2


def test_no_character_of_a_log_moves_the_terminal() -> None:
    """A writer's id may be of anybody's making."""
    line = b'{"event":"minted","time":"x","writer":"\xc2\x9b1A\\n\\u202e","seq":7,"prev":null}\n'
    shown = run("-", stdin=line).stdout
    assert "\\u009b1A\\u000a\\u202e" in shown
    assert not set("\x9b\u202e") & set(shown)
