"""One thread, a bounded queue, and callers who give up."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from macp_auth import SignerUnavailable
from macp_auth_pkcs11 import worker as module
from macp_auth_pkcs11.worker import Worker


class Gate:
    """A call that hangs until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.opened.wait(10)
        return "through"


async def started(worker: Worker, gate: Gate) -> asyncio.Task[str]:
    """A task whose call has the thread for itself."""
    task = asyncio.create_task(worker.run(gate))
    await asyncio.to_thread(gate.entered.wait, 10)
    return task


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_all_calls_run_on_one_thread_in_order() -> None:
    """Calls run as they came, none on the event loop's thread, and the last one at the end."""
    ran: list[tuple[int, int]] = []

    def record(number: int) -> None:
        ran.append((number, threading.get_ident()))

    async def scenario() -> None:
        worker = Worker(100, last=lambda: record(100))
        await asyncio.gather(*(worker.run(lambda n=number: record(n)) for number in range(100)))  # type: ignore[misc]  # mypy does not infer a lambda's default
        await worker.close()

    asyncio.run(scenario())
    assert [number for number, _ in ran] == list(range(101))
    assert {thread for _, thread in ran}.isdisjoint({threading.get_ident()})
    assert len({thread for _, thread in ran}) == 1


def test_what_a_call_raises_reaches_its_caller_only() -> None:
    """An error goes to whoever made the call, and the thread goes on."""

    def fail() -> None:
        raise KeyError("mine")

    async def scenario() -> None:
        worker = Worker(2, last=lambda: None)
        with pytest.raises(KeyError, match="mine"):
            await worker.run(fail)
        assert await worker.run(lambda: 7) == 7
        await worker.close()

    asyncio.run(scenario())


def test_beyond_the_bound_is_refused_at_once() -> None:
    """With the queue full, a request is told so without waiting; with room again, it is served."""

    async def scenario() -> None:
        worker, gate = Worker(2, last=lambda: None), Gate()
        running = await started(worker, gate)
        waiting = [asyncio.create_task(worker.run(lambda: 1)) for _ in range(2)]
        await settle()
        with pytest.raises(SignerUnavailable, match="2 requests wait .*MAX_WAITING") as caught:
            await asyncio.wait_for(worker.run(lambda: 1), 1)
        assert caught.value.reason == "busy"
        gate.opened.set()
        assert await running == "through"
        assert await asyncio.gather(*waiting) == [1, 1]
        assert await worker.run(lambda: 2) == 2
        await worker.close()

    asyncio.run(scenario())


def test_cancelled_call_leaves_the_queue() -> None:
    """Who gives up makes room at once, and the call is never made: a hang piles nothing up."""

    async def scenario() -> None:
        worker, gate, ran = Worker(1, last=lambda: None), Gate(), []
        running = await started(worker, gate)
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(worker.run(lambda: ran.append("cancelled")), 0.001)
        kept = asyncio.create_task(worker.run(lambda: ran.append("kept")))
        await settle()
        gate.opened.set()
        await asyncio.gather(running, kept)
        await worker.close()
        assert ran == ["kept"]

    asyncio.run(scenario())


def test_cancelled_while_it_runs() -> None:
    """A running call can't be stopped; its caller goes on at once, and the thread afterwards."""

    async def scenario() -> None:
        worker, gate = Worker(1, last=lambda: None), Gate()
        running = await started(worker, gate)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 1)
        gate.opened.set()
        assert await worker.run(lambda: 3) == 3
        await worker.close()

    asyncio.run(scenario())


def test_close_refuses_what_waits_and_ends_the_thread() -> None:
    """The running call ends, those behind it are refused, the thread is gone; again changes nothing."""
    ended = []

    async def scenario() -> None:
        worker, gate = Worker(5, last=lambda: ended.append(1)), Gate()
        running = await started(worker, gate)
        waiting = asyncio.create_task(worker.run(lambda: 1))
        await settle()
        threading.Timer(0.1, gate.opened.set).start()
        await asyncio.gather(worker.close(), worker.close())
        assert await running == "through"
        with pytest.raises(SignerUnavailable, match="closed"):
            await waiting
        with pytest.raises(SignerUnavailable, match="closed"):
            await worker.run(lambda: 1)
        await worker.close()

    asyncio.run(scenario())
    assert ended == [1]
    assert "pkcs11" not in {thread.name for thread in threading.enumerate()}


def test_close_leaves_a_hang_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that never ends holds up the end for a bounded time, on a thread that holds up no process."""
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.1)
    gate = Gate()

    async def scenario() -> float:
        worker = Worker(5, last=lambda: None)
        running = await started(worker, gate)
        before = time.monotonic()
        await worker.close()
        took = time.monotonic() - before
        running.cancel()
        return took

    assert asyncio.run(scenario()) < 2
    (hanging,) = (thread for thread in threading.enumerate() if thread.name == "pkcs11")
    assert hanging.daemon
    gate.opened.set()
    hanging.join(10)


def test_close_before_any_call() -> None:
    """A signer that was never used has no thread to end."""
    asyncio.run(Worker(1, last=lambda: pytest.fail("there is nothing to end")).close())
