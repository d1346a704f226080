"""With a required audit log, no token leaves before its line is written; else there is a 503, and soon."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from litestar.types import Message, Scope

from macp_auth.adapters.audit import log as audit_log
from macp_auth.adapters.audit import writer as writing
from macp_auth.adapters.audit.destination import Destination
from macp_auth.adapters.audit.line import audit_line
from macp_auth.adapters.audit.log import RequiredAuditLog
from macp_auth.adapters.audit.standard_output import StandardOutput
from macp_auth.domain.errors import AuditUnavailable, ConfigurationError, InvalidScopes
from macp_auth.domain.minting import MintEvent
from macp_auth.entrypoints.environment import PREFIX, read_settings
from macp_auth.entrypoints.http.tokens import token_app
from macp_auth.entrypoints.settings import Settings
from tests.audit.chains import unlinked
from tests.audit.test_line import attempt, minted
from tools.support.bounded import HANG_SECONDS

TOKEN = attempt(minted())
LINE = audit_line(TOKEN)


class Steered(Destination):
    """A file that is full or hangs as long as the test says."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), StandardOutput(1))
        self.full = False
        self.answers = threading.Event()
        self.answers.set()
        self.calls = 0

    def append(self, lines: Sequence[bytes]) -> int:
        self.calls += 1
        assert self.answers.wait(HANG_SECONDS)
        if self.full:
            raise OSError(errno.ENOSPC, "full")
        return super().append(lines)


@pytest.fixture
def steered(tmp_path: Path) -> Steered:
    return Steered(tmp_path / "audit.log")


def serve(destination: Destination, serving: Callable[[RequiredAuditLog], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        log = RequiredAuditLog(destination)
        async with log.running():
            await serving(log)

    asyncio.run(run())


def lines_in(tmp_path: Path) -> list[bytes]:
    with (tmp_path / "audit.log").open("rb") as lines:
        return unlinked(line for line in lines if not line.isspace())


async def outcome(log: RequiredAuditLog) -> str:
    try:
        await log.recorded(TOKEN)
    except AuditUnavailable:
        return "unavailable"
    return "recorded"


async def all_of(log: RequiredAuditLog, count: int) -> list[str]:
    return list(await asyncio.gather(*(outcome(log) for _ in range(count))))


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_a_token_waits_for_its_line(steered: Steered, tmp_path: Path) -> None:
    """When it is recorded, the file has it."""

    async def serving(log: RequiredAuditLog) -> None:
        for count in range(1, 20):
            await log.recorded(TOKEN)
            assert lines_in(tmp_path) == [LINE] * count

    serve(steered, serving)


def test_all_tokens_of_a_turn_share_a_write(steered: Steered) -> None:
    """However many requests come at a time."""

    async def serving(log: RequiredAuditLog) -> None:
        assert await all_of(log, 100) == ["recorded"] * 100
        assert steered.calls == 1
        await all_of(log, 100)
        assert steered.calls == 2

    serve(steered, serving)


def test_more_than_one_write_takes(steered: Steered, tmp_path: Path) -> None:
    """All lines of a large turn, in their order, beside refusals."""

    async def serving(log: RequiredAuditLog) -> None:
        for _ in range(50):
            log.record(attempt(InvalidScopes("x")))
        assert await all_of(log, 2000) == ["recorded"] * 2000

    serve(steered, serving)
    assert lines_in(tmp_path).count(LINE) == 2000
    assert len(lines_in(tmp_path)) == 2050


def test_no_token_leaves_before_the_last_line_of_its_turn(
    steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after a part of them."""
    monkeypatch.setattr(audit_log, "WRITE_SECONDS", 0.3)
    append = Destination.append

    def first_only(self: Destination, lines: Sequence[bytes]) -> int:
        taken = append(self, lines)
        steered.full = True
        return taken

    monkeypatch.setattr(Destination, "append", first_only)

    async def serving(log: RequiredAuditLog) -> None:
        assert await all_of(log, 2000) == ["unavailable"] * 2000
        assert steered.calls > 1

    serve(steered, serving)


def test_a_turn_does_not_wait_for_the_next_one_nor_the_other_way_round(
    steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first turn is written, then the disk does not answer."""
    monkeypatch.setattr(audit_log, "WRITE_SECONDS", 0.2)

    async def serving(log: RequiredAuditLog) -> None:
        assert await outcome(log) == "recorded"
        steered.answers.clear()
        second = asyncio.create_task(outcome(log))
        await until(lambda: steered.calls == 2)
        third = asyncio.create_task(outcome(log))
        assert await second == await third == "unavailable"
        steered.answers.set()

    serve(steered, serving)


def test_refusals_that_can_t_be_written_show_it_too(
    steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first token comes."""
    monkeypatch.setattr(writing, "RETRY_SECONDS", 0.05)

    async def serving(log: RequiredAuditLog) -> None:
        steered.full = True
        log.record(attempt(InvalidScopes("x")))
        await until(log.is_unavailable)
        assert await outcome(log) == "unavailable"
        steered.full = False
        await until(lambda: not log.is_unavailable())

    serve(steered, serving)


def test_a_full_disk_is_known_at_once_and_recovers(
    steered: Steered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first tokens wait up to the deadline; later ones do not wait, and none of them is queued."""
    monkeypatch.setattr(audit_log, "WRITE_SECONDS", 1)
    monkeypatch.setattr(writing, "RETRY_SECONDS", 0.05)

    async def serving(log: RequiredAuditLog) -> None:
        assert await outcome(log) == "recorded"
        steered.full = True
        assert await all_of(log, 3) == ["unavailable"] * 3
        assert log.is_unavailable()
        began = time.monotonic()
        assert await all_of(log, 50) == ["unavailable"] * 50
        assert time.monotonic() - began < 1
        steered.full = False
        await until(lambda: not log.is_unavailable())
        assert await outcome(log) == "recorded"

    serve(steered, serving)
    assert lines_in(tmp_path) == [LINE] * 5  # three are of tokens that did not leave


def test_a_short_trouble_costs_time_only(steered: Steered, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is written within the deadline is good."""
    monkeypatch.setattr(writing, "RETRY_SECONDS", 0.05)

    async def serving(log: RequiredAuditLog) -> None:
        steered.full = True
        waiting = asyncio.create_task(outcome(log))
        await until(lambda: steered.calls > 1)
        steered.full = False
        assert await waiting == "recorded"
        await until(lambda: not log.is_unavailable())

    serve(steered, serving)


def test_a_disk_that_does_not_answer_is_unavailable(
    steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop goes on, the tokens have a deadline, and nothing more is queued."""
    monkeypatch.setattr(audit_log, "WRITE_SECONDS", 0.2)

    async def serving(log: RequiredAuditLog) -> None:
        steered.answers.clear()
        began = time.monotonic()
        assert await all_of(log, 3) == ["unavailable"] * 3
        assert 0.2 <= time.monotonic() - began < HANG_SECONDS
        assert log.is_unavailable()
        assert await outcome(log) == "unavailable"
        steered.answers.set()
        await until(lambda: not log.is_unavailable())
        assert await outcome(log) == "recorded"

    serve(steered, serving)


def test_what_there_is_no_room_for_is_unavailable(steered: Steered, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that is larger than the buffer; nothing is counted as dropped, for no token left."""
    monkeypatch.setattr(writing, "MINTED_BYTES", 10 * (len(LINE) + 64))

    async def serving(log: RequiredAuditLog) -> None:
        outcomes = await all_of(log, 15)
        assert outcomes == ["recorded"] * 10 + ["unavailable"] * 5

    serve(steered, serving)


def test_a_request_that_was_given_up_holds_up_no_other(steered: Steered, tmp_path: Path) -> None:
    """Its line is written all the same."""

    async def serving(log: RequiredAuditLog) -> None:
        tasks = [asyncio.create_task(outcome(log)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        assert await tasks[0] == await tasks[2] == "recorded"
        assert tasks[1].cancelled()

    serve(steered, serving)
    assert lines_in(tmp_path) == [LINE] * 3


def test_what_is_recorded_last_is_written_at_the_end(steered: Steered, tmp_path: Path) -> None:
    """Also in the turn in which the service ends."""

    async def serving(log: RequiredAuditLog) -> None:
        task = asyncio.create_task(log.recorded(TOKEN))
        await asyncio.sleep(0)
        task.add_done_callback(lambda _: None)

    serve(steered, serving)
    assert lines_in(tmp_path) == [LINE]


def test_observers_see_what_the_caller_gets() -> None:
    """A token that is not recorded is a failure, and is not counted as minted."""
    seen: list[MintEvent] = []

    class Minter:
        async def mint(self, *_: object) -> object:
            return minted()

    async def unavailable(event: MintEvent) -> None:
        assert event.minted is not None
        assert not seen
        raise AuditUnavailable

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"sender":"a"}', "more_body": False}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    app = token_app(Minter(), [seen.append], now=lambda: None, recorded=unavailable)  # type: ignore[arg-type, return-value]
    scope: Scope = {"client": None, "headers": [(b"content-type", b"application/json")]}  # type: ignore[assignment]
    with pytest.raises(AuditUnavailable):
        asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    assert [(event.minted, event.status, event.reason) for event in seen] == [
        (None, 503, "audit-unavailable")
    ]


def test_a_required_log_that_is_off_is_refused() -> None:
    """The message names both variables."""
    settings = read_settings(
        Settings, PREFIX, {"MACP_AUTH_AUDIT_LOG": "off", "MACP_AUTH_AUDIT_REQUIRED": "on"}
    )
    with pytest.raises(ConfigurationError) as raised:
        settings.check_audit()
    assert "MACP_AUTH_AUDIT_REQUIRED" in str(raised.value)
    assert "MACP_AUTH_AUDIT_LOG" in str(raised.value)
    read_settings(Settings, PREFIX, {"MACP_AUTH_AUDIT_REQUIRED": "on"}).check_audit()
    read_settings(Settings, PREFIX, {"MACP_AUTH_AUDIT_LOG": "off"}).check_audit()
