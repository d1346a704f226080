"""The process of a signer: how it is replaced, and how calls end that it does not answer."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from structlog.testing import capture_logs

from macp_auth.adapters.sandbox import connection, hosted
from macp_auth.adapters.sandbox.bulkhead import SignerBusy
from macp_auth.adapters.sandbox.connection import Connection
from macp_auth.adapters.sandbox.hosted import MAX_BACK_OFF_SECONDS, HostedSigner, Opening, pause_after
from macp_auth.adapters.sandbox.limits import Limits
from macp_auth.adapters.sandbox.messages import Call, Cancel, Code, Failure, Nothing, Reply, frame, raw
from macp_auth.adapters.sandbox.process import Launch
from macp_auth.adapters.sandbox.serving import Method, Server
from macp_auth.adapters.sandbox.translation import PluginFault
from macp_auth.domain.errors import SignerError, SignerUnavailable
from macp_auth.domain.secret import Secret
from tests.support import stub_program
from tools.support.service import wait_until

pytestmark = pytest.mark.process

SECONDS = 5.0
STALL_SECONDS = 1.0


@asynccontextmanager
async def stub(fault: str, home: Path, limits: Limits | None = None) -> AsyncIterator[HostedSigner]:
    """The signer of a stub with this fault, which signs one at a time."""
    command = (sys.executable, "-I", "-S", stub_program.__file__, fault, str(home / "had"))
    opening = Opening(Launch("stub", command, 2**30), {}, Secret(b""), 1)
    signer = HostedSigner(opening, limits or Limits(sign_seconds=SECONDS))
    try:
        yield signer
    finally:
        await signer.aclose()


async def signs_again(signer: HostedSigner) -> None:
    """Wait until it signs."""
    ends = time.monotonic() + SECONDS
    while True:
        try:
            async with asyncio.timeout(SECONDS):
                await signer.sign("k1", b"input")
        except SignerError:
            if time.monotonic() > ends:
                raise
            await asyncio.sleep(0.02)
        else:
            return


def test_a_process_that_ends_once_it_is_open_is_replaced(tmp_path: Path) -> None:
    """Its end arrives together with its last answer."""

    async def run() -> None:
        async with stub("exit once open", tmp_path) as signer:
            await signs_again(signer)

    uvloop.run(run())


def test_a_process_that_answers_no_cancelled_call_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call keeps its turn, and this signer has only one."""
    monkeypatch.setattr(connection, "CANCELLED_SECONDS", 0.1)

    async def run() -> None:
        async with stub("ignore a signature", tmp_path) as signer:
            await signer.key_versions()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await signer.sign("k1", b"input")
            await signs_again(signer)

    uvloop.run(run())


def test_calls_without_an_answer_end_in_time(tmp_path: Path) -> None:
    """One that had its turn is late. One that only waited says nothing of the backend, so it is busy."""

    async def run() -> None:
        async with stub("ignore a signature", tmp_path, Limits(sign_seconds=0.1, pending_signs=3)) as signer:
            await signer.key_versions()
            calls = [asyncio.create_task(signer.sign("k1", b"input")) for _ in range(4)]
            await asyncio.wait(calls, timeout=SECONDS)
            late, waited, gone, refused = (str(call.exception()) for call in calls)
            assert late == "the signer 'stub' did not end sign within 0.1 s"
            assert waited == gone == "the signer 'stub' is busy: no turn within 0.1 s"
            assert refused == "the signer 'stub' is busy: 3 concurrent signatures"
            assert signer.statistics()["signatures_in_flight"] == 1  # the process has not ended it
            with pytest.raises(SignerBusy, match="no turn"):
                await signer.sign("k1", b"input")
            cancelled = asyncio.create_task(signer.sign("k1", b"input"))
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            assert signer.statistics()["signatures_in_flight"] == 1

    uvloop.run(run())


def test_a_late_reading_of_the_keys_ends_in_time(tmp_path: Path) -> None:
    """As does a start that takes longer."""

    async def run() -> None:
        async with stub("no answer", tmp_path, Limits(read_seconds=0.1)) as signer:
            with pytest.raises(SignerUnavailable, match="did not end key_versions within 0.1 s") as late:
                await signer.key_versions()
            assert late.value.reason == "deadline"

    uvloop.run(run())


def test_a_service_that_stands_still_replaces_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timers end before it reads the answers to a heartbeat and to a cancelled call, which came in time."""
    monkeypatch.setattr(connection, "CANCELLED_SECONDS", STALL_SECONDS / 2)
    monkeypatch.setattr(hosted, "HEARTBEAT_SECONDS", STALL_SECONDS / 2 / hosted.HEARTBEATS)
    stall, stalling = socket.socketpair()
    call, stalled = Connection.call, asyncio.Event()

    def stand_still() -> None:  # in the turn of the loop that reads sockets, as timers then come first
        stalling.recv(1)
        time.sleep(STALL_SECONDS)
        stalled.set()

    async def call_and_stall(link: Connection, method: str, *others: Any) -> Any:
        if method == "ping" and not stalled.is_set():
            stall.send(b"x")
        return await call(link, method, *others)

    async def run() -> None:
        asyncio.get_running_loop().add_reader(stalling, stand_still)
        async with stub("slow", tmp_path) as signer:
            monkeypatch.setattr(Connection, "call", call_and_stall)
            await asyncio.wait_for(stalled.wait(), SECONDS)
            await signs_again(signer)
            signing = asyncio.create_task(signer.sign("k1", b"input"))
            await asyncio.sleep(0)  # it is sent
            signing.cancel()
            await asyncio.wait([signing])
            stall.send(b"x")
            await signs_again(signer)
            assert signer.statistics()["process_restarts_total"] == 0

    with stall, stalling:
        uvloop.run(run())


def test_an_answer_that_is_not_utf8_is_a_fault(tmp_path: Path) -> None:
    """It is found only where the text is decoded."""

    async def run() -> None:
        async with stub("no UTF-8", tmp_path) as signer:
            with pytest.raises(PluginFault, match="'stub' answers key_versions with an invalid result"):
                await signer.key_versions()

    uvloop.run(run())


def test_a_signer_may_be_closed_while_it_starts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No process is left, and the log has no error."""

    async def run() -> None:
        with capture_logs() as lines:
            async with stub("no answer", tmp_path):
                begun = (tmp_path / "had").exists
                await asyncio.to_thread(wait_until, begun, within=SECONDS, what="it starts")
            gc.collect()  # asyncio then logs exceptions that nobody retrieved
        assert lines == []
        assert caplog.records == []

    uvloop.run(run())


def test_a_service_without_descriptors_starts_the_process_later(tmp_path: Path) -> None:
    """Each call then has an error of the port, and attempts to start pause."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def run() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            async with stub("", tmp_path) as signer:
                for _ in range(3):
                    with pytest.raises(SignerUnavailable, match="Too many open files|starts again in"):
                        await signer.key_versions()
                assert signer.statistics()["process_restarts_total"] == 1
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                await signs_again(signer)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    uvloop.run(run())


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: asyncio.Queue[bytes] = asyncio.Queue()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.put_nowait(bytes(data))

    def abort(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False


def test_a_cancelled_call_ends_at_once_and_its_turn_with_the_process() -> None:
    """The client has gone, and the process still works for it."""

    async def run() -> None:
        lost: list[str] = []
        ended: list[int] = []
        link = Connection("stub", lost.append)
        link.connection_made(Transport())
        calls = [
            asyncio.create_task(link.call("sign", Nothing(), Nothing, partial(ended.append, number)))
            for number in range(3)
        ]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        assert not (await asyncio.wait(calls, timeout=SECONDS))[1]
        assert ended == []
        link.data_received(frame(Reply(2, result=raw(Nothing()))))
        assert ended == [1]
        link.close()
        assert ended == [1, 0, 2]
        assert lost == ["it was stopped"]

    uvloop.run(run())


def test_a_reply_in_the_turn_of_its_deadline_counts(caplog: pytest.LogCaptureFixture) -> None:
    """The timer then leaves it alone."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        link = Connection("stub", lambda _: None)
        link.connection_made(Transport())
        call = asyncio.create_task(link.call("sign", Nothing(), Nothing, deadline=loop.time()))
        await asyncio.sleep(0)
        loop.call_soon(link.data_received, frame(Reply(1, result=raw(Nothing()))))
        assert await call == Nothing()
        assert not caplog.records

    asyncio.run(run())  # whose timers come last in a turn


@pytest.mark.parametrize("ends", [0, 1, 2, 5, 2000])
def test_the_pause_between_starts_is_bounded(ends: int) -> None:
    """However long a backend is broken."""
    assert 0 <= pause_after(ends) <= MAX_BACK_OFF_SECONDS


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (object(), Code.FAULT, "raised"),
        (MemoryError("s3cret"), Code.FAULT, "raised"),
        (RecursionError("s3cret"), Code.FAULT, "raised"),
        (asyncio.CancelledError("s3cret"), Code.UNAVAILABLE, "cancelled"),  # a library may leak one
    ],
    ids=lambda each: type(each).__name__,
)
def test_each_request_has_a_reply(answer: object, code: Code, text: str) -> None:
    """Also if its result can't be encoded, as when a plugin declares an object of its own as durable."""

    async def call(_: Nothing) -> object:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def run() -> None:
        server, transport = Server({"hello": Method(Nothing, call)}, lambda: None), Transport()
        server.connection_made(transport)
        server.data_received(frame(Call("hello", id=1)))
        async with asyncio.timeout(SECONDS):
            reply = msgspec.json.decode((await transport.written.get())[4:], type=Reply)
        assert isinstance(reply.error, Failure)
        assert reply.error.code == code
        assert text in reply.error.message
        assert "s3cret" not in reply.error.message

    uvloop.run(run())


def test_a_call_that_is_cancelled_before_it_begins_has_a_reply() -> None:
    """Both may come in one turn of the loop. Without a reply, the service replaces the process."""

    async def call(_: Nothing) -> Nothing:
        return Nothing()

    async def run() -> None:
        server, transport = Server({"sign": Method(Nothing, call)}, lambda: None), Transport()
        server.connection_made(transport)
        server.data_received(frame(Call("sign", id=1)))
        server.data_received(frame(Call("cancel", raw(Cancel(1)))))
        async with asyncio.timeout(SECONDS):
            reply = msgspec.json.decode((await transport.written.get())[4:], type=Reply)
        assert isinstance(reply.error, Failure)
        assert (reply.id, reply.error.code) == (1, Code.UNAVAILABLE)

    uvloop.run(run())
