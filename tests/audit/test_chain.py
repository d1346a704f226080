"""The chain: each line names its writer, its number and the line before; the head goes to the service log."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from macp_auth.adapters.audit import writer as writing
from macp_auth.adapters.audit.chain import HEAD_EVENT, MAX_MEMBERS_BYTES, Chain, digest, linked_line
from macp_auth.adapters.audit.destination import Destination
from macp_auth.adapters.audit.line import MAX_LINE_BYTES, audit_line
from macp_auth.adapters.audit.reading import Log
from macp_auth.adapters.audit.standard_output import StandardOutput
from macp_auth.adapters.audit.verification import verify
from macp_auth.adapters.audit.writer import LineWriter
from macp_auth.domain.errors import InvalidScopes
from macp_auth.domain.minting import TokenRequest
from tests.audit.chains import unlinked
from tests.audit.test_line import attempt
from tools.support.bounded import HANG_SECONDS
from tools.support.service import wait_until

PAD = b"x" * 400
LINE = b'{"time":"%08d","event":"minted","pad":"' + PAD + b'"}\n'
MAX_BYTES = 65536


def test_a_line_has_the_sha256_of_the_line_before() -> None:
    """Of all its bytes but the line's end; anyone can check it with sha256sum."""
    first, second = Chain().link([b'{"a":1}\n', b'{"b":2}\n'], MAX_BYTES)
    one, two = json.loads(first), json.loads(second)
    assert (one["a"], one["seq"], one["prev"]) == (1, 1, None)
    assert (two["b"], two["seq"], two["writer"]) == (2, 2, one["writer"])
    assert two["prev"] == hashlib.sha256(first[:-1]).hexdigest() == digest(first)


def test_what_was_not_written_has_no_number() -> None:
    """Of five lines, three fit and two are written: the next one is the third."""
    chain = Chain()
    lines = [LINE % number for number in range(5)]
    linked = chain.link(lines, 3 * (len(LINE % 0) + MAX_MEMBERS_BYTES))
    assert len(linked) == 3
    chain.written(2)
    assert (chain.head.seq, chain.head.sha256) == (2, digest(linked[1]))
    again = chain.link(lines[2:], MAX_BYTES)
    assert again[0] == linked[2]
    chain.written(0)
    assert chain.head.seq == 2
    assert unlinked(linked[:2] + again) == lines


def test_one_line_is_linked_whatever_its_size() -> None:
    """So that a line can't block those after it."""
    assert len(Chain().link([LINE % 0], 1)) == 1


def test_each_writer_has_its_own_id() -> None:
    """Random: a restarted process is another writer."""
    assert len({Chain().head.writer for _ in range(1000)}) == 1000


def test_the_longest_line_fits_with_its_links() -> None:
    """A pipe takes 4096 bytes at once."""
    longest = max(
        (
            audit_line(attempt(InvalidScopes("x"), TokenRequest(sender="s", scopes={"x": "y" * length})))
            for length in range(3000, 4000)
        ),
        key=len,
    )
    assert len(linked_line(longest, "w" * 12, 2**53, "0" * 64)) == MAX_LINE_BYTES


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes the disk takes of each of the next calls; 0 is an error. Then it takes all."""
    takes: list[int] = []
    write = os.write

    def faulty(fd: int, data: bytes) -> int:
        if PAD not in data or not takes:
            return write(fd, data)
        if not (size := takes.pop(0)):
            raise OSError(errno.ENOSPC, "full")
        return write(fd, data[:size])

    monkeypatch.setattr(os, "write", faulty)
    return takes


@pytest.mark.parametrize(
    "takes", [[0], [1], [200], [len(LINE % 0) - 1], [600, 0, 700, 1], [1300, 5, 0, 0, 900]]
)
def test_a_half_written_line_is_written_again_with_its_number(
    takes: list[int], disk: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of it a full disk took: the chain is whole."""
    monkeypatch.setattr(writing, "RETRY_SECONDS", 0.01)
    path = tmp_path / "audit.log"
    disk += takes
    writer = LineWriter(Destination(str(path), StandardOutput(1)), lambda _: None)
    for number in range(8):
        writer.put_minted(LINE % number)
    writer.start()
    writer.close()
    whole = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"}\n")]
    assert unlinked(whole) == [LINE % number for number in range(8)]
    with path.open("rb") as lines:
        result = verify([Log("audit.log", lines)])
    assert result.findings == []


@pytest.mark.parametrize("missing", [1, 2])
def test_a_line_that_lacks_only_its_end_is_whole(missing: int, disk: list[int], tmp_path: Path) -> None:
    """It is ended by the next call, and not written twice."""
    path = tmp_path / "audit.log"
    size = len(linked_line(LINE % 0, "w" * 12, 1, None))
    disk.append(size - missing)
    writer = LineWriter(Destination(str(path), StandardOutput(1)), lambda _: None)
    writer.put_minted(LINE % 0)
    writer.put_minted(LINE % 1)
    writer.start()
    writer.close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + missing
    assert unlinked(lines[missing - 1 :]) == [LINE % 0, LINE % 1]


def heads(logs: Iterable[Mapping[str, Any]]) -> list[int]:
    return [log["seq"] for log in list(logs) if log["event"] == HEAD_EVENT]


def test_the_head_is_logged_from_time_to_time_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only if it changed: a service that mints nothing logs nothing."""
    monkeypatch.setattr(writing, "HEAD_SECONDS", 0.2)
    path = tmp_path / "audit.log"
    writer = LineWriter(Destination(str(path), StandardOutput(1)), lambda _: None)
    with capture_logs() as logs:
        writer.start()

        def logged(count: int) -> Callable[[], bool]:
            return lambda: len(heads(logs)) == count

        writer.put_minted(LINE % 0)
        writer.put_minted(LINE % 1)
        wait_until(logged(1), within=HANG_SECONDS, what="the head is logged")
        time.sleep(0.5)  # nothing new
        writer.put_refused(LINE % 2, "invalid-json")
        wait_until(logged(2), within=HANG_SECONDS, what="the new head is logged")
        writer.close()
        assert logged(2)()
        quiet = LineWriter(Destination(str(path), StandardOutput(1)), lambda _: None)
        quiet.start()
        quiet.close()
    assert heads(logs)[-1] == 3
    last = path.read_bytes().splitlines(keepends=True)[-1]
    assert logs[-1]["sha256"] == digest(last)
    assert logs[-1]["writer"] == json.loads(last)["writer"]


def test_the_head_is_logged_at_the_end(tmp_path: Path) -> None:
    """Also within its first minute."""
    writer = LineWriter(Destination(str(tmp_path / "audit.log"), StandardOutput(1)), lambda _: None)
    with capture_logs() as logs:
        writer.start()
        writer.put_minted(LINE % 0)
        writer.close()
    assert heads(logs) == [1]
