"""Bounded threads, a bounded queue, and callers who give up."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from macp_auth import BoundedThreadPool, SignerUnavailable

NAME = "pool-of-the-test"


def one_thread(max_waiting: int) -> BoundedThreadPool:
    return BoundedThreadPool(
        NAME,
        threads=1,
        max_waiting=max_waiting,
        when_full=f"{max_waiting} requests wait (MAX_WAITING)",
    )


class Gate:
    """A call that hangs until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.opened.wait(10)
        return "through"


async def started(pool: BoundedThreadPool, gate: Gate) -> asyncio.Task[str]:
    """A task whose call has the thread for itself."""
    task = asyncio.create_task(pool.run(gate))
    await asyncio.to_thread(gate.entered.wait, 10)
    return task


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_all_calls_run_on_one_thread_in_order() -> None:
    """Calls run as they came, none on the event loop's thread."""
    ran: list[tuple[int, int]] = []

    def record(number: int) -> None:
        ran.append((number, threading.get_ident()))

    async def scenario() -> None:
        pool = one_thread(100)
        await asyncio.gather(*(pool.run(lambda n=number: record(n)) for number in range(100)))  # type: ignore[misc]  # mypy does not infer a lambda's default
        await pool.aclose()

    asyncio.run(scenario())
    assert [number for number, _ in ran] == list(range(100))
    assert {thread for _, thread in ran}.isdisjoint({threading.get_ident()})
    assert len({thread for _, thread in ran}) == 1


def test_what_a_call_raises_reaches_its_caller_only() -> None:
    """The caller gets the error, and the thread continues."""

    def fail() -> None:
        raise KeyError("mine")

    async def scenario() -> None:
        pool = one_thread(2)
        with pytest.raises(KeyError, match="mine"):
            await pool.run(fail)
        assert await pool.run(lambda: 7) == 7
        await pool.aclose()

    asyncio.run(scenario())


def test_beyond_the_bound_is_refused_at_once() -> None:
    """With a full queue, a request is refused at once; later it is served again."""

    async def scenario() -> None:
        pool, gate = one_thread(2), Gate()
        running = await started(pool, gate)
        waiting = [asyncio.create_task(pool.run(lambda: 1)) for _ in range(2)]
        await settle()
        with pytest.raises(SignerUnavailable, match="2 requests wait .*MAX_WAITING") as caught:
            await asyncio.wait_for(pool.run(lambda: 1), 1)
        assert caught.value.reason == "busy"
        gate.opened.set()
        assert await running == "through"
        assert await asyncio.gather(*waiting) == [1, 1]
        assert await pool.run(lambda: 2) == 2
        await pool.aclose()

    asyncio.run(scenario())


def test_cancelled_call_leaves_the_queue() -> None:
    """Who gives up makes room at once, and the call is never made: a hang piles nothing up."""

    async def scenario() -> None:
        pool, gate, ran = one_thread(1), Gate(), []
        running = await started(pool, gate)
        for _ in range(50):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.run(lambda: ran.append("cancelled")), 0.001)
        kept = asyncio.create_task(pool.run(lambda: ran.append("kept")))
        await settle()
        gate.opened.set()
        await asyncio.gather(running, kept)
        await pool.aclose()
        assert ran == ["kept"]

    asyncio.run(scenario())


def test_cancelled_while_it_runs() -> None:
    """A running call can't be stopped; its caller goes on at once, and the thread afterwards."""

    async def scenario() -> None:
        pool, gate = one_thread(1), Gate()
        running = await started(pool, gate)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 1)
        gate.opened.set()
        assert await pool.run(lambda: 3) == 3
        await pool.aclose()

    asyncio.run(scenario())


def test_close_refuses_what_waits_and_ends_the_thread() -> None:
    """The running call ends, those behind it are refused, the thread is gone; again changes nothing."""

    async def scenario() -> None:
        pool, gate = one_thread(5), Gate()
        running = await started(pool, gate)
        waiting = asyncio.create_task(pool.run(lambda: 1))
        await settle()
        threading.Timer(0.1, gate.opened.set).start()
        await asyncio.gather(pool.aclose(), pool.aclose())
        assert await running == "through"
        with pytest.raises(SignerUnavailable, match="closed"):
            await waiting
        with pytest.raises(SignerUnavailable, match="closed"):
            await pool.run(lambda: 1)
        await pool.aclose()

    asyncio.run(scenario())
    assert NAME not in {thread.name for thread in threading.enumerate()}


def test_close_leaves_a_hang_behind() -> None:
    """A call that never ends holds up the end for a bounded time, on a thread that holds up no process."""
    gate = Gate()

    async def scenario() -> float:
        pool = one_thread(5)
        running = await started(pool, gate)
        before = time.monotonic()
        await pool.aclose(grace_seconds=0.1)
        took = time.monotonic() - before
        with pytest.raises(SignerUnavailable, match="closed") as caught:
            await asyncio.wait_for(running, 1)
        assert caught.value.reason == "closed"
        return took

    assert asyncio.run(scenario()) < 2
    (hanging,) = (thread for thread in threading.enumerate() if thread.name == NAME)
    assert hanging.daemon
    gate.opened.set()
    hanging.join(10)


def test_close_before_any_call() -> None:
    """A signer that was never used has no thread to end."""
    asyncio.run(one_thread(1).aclose())


def test_several_threads_and_no_more() -> None:
    """As many calls run at once as there are threads; without room to wait, one more is refused."""

    async def scenario() -> None:
        pool = BoundedThreadPool(NAME, threads=2, when_full="both are in use")
        gates = Gate(), Gate()
        running = [await started(pool, gate) for gate in gates]
        with pytest.raises(SignerUnavailable, match="both are in use"):
            await pool.run(lambda: 1)
        gates[0].opened.set()
        assert await running[0] == "through"
        assert await pool.run(lambda: 2) == 2
        assert [thread.name for thread in threading.enumerate()].count(NAME) == 2
        gates[1].opened.set()
        await pool.aclose()

    asyncio.run(scenario())
    assert NAME not in {thread.name for thread in threading.enumerate()}


def test_an_abandoned_call_counts_until_it_returns() -> None:
    """Otherwise abandoned calls would pile up."""

    async def scenario() -> None:
        pool, gate = BoundedThreadPool(NAME, threads=1, when_full="full"), Gate()
        running = await started(pool, gate)
        running.cancel()
        await asyncio.wait([running])
        with pytest.raises(SignerUnavailable, match="full"):
            await pool.run(lambda: 1)
        gate.opened.set()
        await pool.aclose()

    asyncio.run(scenario())


def test_a_thread_starts_when_it_is_needed() -> None:
    """Calls one after the other use one thread of many, from any event loop."""
    pool = BoundedThreadPool(NAME, threads=8, when_full="full")
    assert NAME not in {thread.name for thread in threading.enumerate()}
    threads = {asyncio.run(pool.run(threading.get_ident)) for _ in range(20)}
    assert len(threads) == 1
    asyncio.run(pool.aclose())
