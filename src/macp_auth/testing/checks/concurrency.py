"""Concurrency: many tasks on one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from macp_auth.domain.keys import KeyVersion
from macp_auth.testing.bench import OBEY_SECONDS, new_input, sign_and_judge, signing_versions
from macp_auth.testing.judge import judge
from macp_auth.testing.registry import Nonconformity, check
from macp_auth.testing.subject import SignerSubject

AT_ONCE = 64
STALL_SECONDS = 0.05
"""How long one call may block the event loop, and so every other request."""
_TRIALS = 8
_ENOUGH_CANCELLED = 3


@check("64 concurrent signatures each match their own input", source="the Signer port: many concurrent tasks")
async def many_at_once(subject: SignerSubject) -> None:
    """Sign inputs of different lengths concurrently, with every version."""
    async with subject.opened() as signer:
        versions = await signing_versions(signer)
        wanted = [(versions[n % len(versions)], new_input("x" * n)) for n in range(AT_ONCE)]
        signatures = await asyncio.gather(*(signer.sign(version.kid, text) for version, text in wanted))
        for (version, text), signature in zip(wanted, signatures, strict=True):
            try:
                judge(version, text, signature, versions)
            except Nonconformity as fault:
                raise _mixed_up(fault, [text for _, text in wanted], version, signature) from fault


def _mixed_up(
    fault: Nonconformity, inputs: list[bytes], version: KeyVersion, signature: bytes
) -> Nonconformity:
    for other in inputs:
        try:
            judge(version, other, signature)
        except Nonconformity:
            continue
        return Nonconformity(
            "a concurrent signature is for another call's input: keep no state of a call on the signer"
        )
    return Nonconformity(f"among {AT_ONCE} concurrent signatures, {fault}")


@check("No call blocks the event loop", source="the Signer port: used from one event loop, by many tasks")
async def loop_is_free(subject: SignerSubject) -> None:
    """Measure how long the loop is blocked; the minimum of several trials excludes noise."""
    async with subject.opened() as signer:
        version = (await signing_versions(signer))[0]
        for name, call in (
            ("sign()", lambda: signer.sign(version.kid, new_input())),
            ("key_versions()", signer.key_versions),
        ):
            stalls = [await _longest_stall(call) for _ in range(_TRIALS)]
            if min(stalls) > STALL_SECONDS:
                raise Nonconformity(
                    f"{name} blocks the event loop for at least {min(stalls) * 1000:.0f} ms, while every "
                    "other request waits: use an asynchronous client, or asyncio.to_thread"
                )


async def _longest_stall(call: Callable[[], Awaitable[object]]) -> float:
    longest, running = 0.0, True

    async def watch() -> None:
        nonlocal longest
        last = time.perf_counter()
        while running:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.002)  # until it runs
    await call()
    running = False
    await watching
    return longest


@check(
    "A cancelled call ends at once, and does not affect others",
    source="asyncio: CancelledError must propagate",
)
async def cancellation(subject: SignerSubject) -> None:
    """Cancel signatures at different moments, while others run."""
    async with subject.opened() as signer:
        version = (await signing_versions(signer))[0]
        began = time.monotonic()
        await sign_and_judge(signer, version, new_input())
        usual = time.monotonic() - began
        cancelled = swallowed = 0
        for trial in range(_TRIALS):
            kept = [
                (text := new_input(), asyncio.create_task(signer.sign(version.kid, text))) for _ in range(2)
            ]
            victim = asyncio.create_task(signer.sign(version.kid, new_input()))
            await asyncio.sleep(usual * trial / _TRIALS)
            if victim.cancel():
                cancelled += 1
                swallowed += await _swallows(victim)
            for text, task in kept:
                await _must_be_good(task, version, text)
        if cancelled >= _ENOUGH_CANCELLED and swallowed == cancelled:
            raise Nonconformity(
                "sign() swallows CancelledError and continues: let it propagate, also from clean-up code"
            )
        await sign_and_judge(signer, version, new_input())


async def _swallows(victim: asyncio.Task[bytes]) -> bool:
    """Whether the task returned although it was cancelled."""
    await asyncio.wait([victim], timeout=OBEY_SECONDS)
    if not victim.done():
        raise Nonconformity(
            f"a cancelled sign() continues for more than {OBEY_SECONDS:g} s: let CancelledError propagate, "
            "without waiting"
        )
    return not victim.cancelled()


async def _must_be_good(task: asyncio.Task[bytes], version: KeyVersion, text: bytes) -> None:
    try:
        judge(version, text, await task)
    except (Exception, asyncio.CancelledError) as error:
        raise Nonconformity(
            f"the cancellation of one call makes a concurrent one fail ({type(error).__name__}): shield "
            "what calls share"
        ) from error
