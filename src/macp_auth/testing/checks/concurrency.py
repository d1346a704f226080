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
"""The longest that one call may keep the event loop: so long every other request stands still."""
_TRIALS = 8
_ENOUGH_CANCELLED = 3


@check(
    "64 signatures at once are each of their own input", source="the Signer port: used by many tasks at once"
)
async def many_at_once(subject: SignerSubject) -> None:
    """Sign inputs of different lengths together, with every version."""
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
            "of signatures made at once, one is of another call's input: keep nothing of a call on the "
            "signer itself"
        )
    return Nonconformity(f"among {AT_ONCE} at once, {fault}")


@check("No call keeps the event loop", source="the Signer port: used from one event loop, by many tasks")
async def loop_is_free(subject: SignerSubject) -> None:
    """Measure for how long the loop does not turn; noise of the machine is not in every trial."""
    async with subject.opened() as signer:
        version = (await signing_versions(signer))[0]
        for name, call in (
            ("sign()", lambda: signer.sign(version.kid, new_input())),
            ("key_versions()", signer.key_versions),
        ):
            stalls = [await _longest_stall(call) for _ in range(_TRIALS)]
            if min(stalls) > STALL_SECONDS:
                raise Nonconformity(
                    f"{name} blocks the event loop, for {min(stalls) * 1000:.0f} ms and more: every other "
                    "request waits; "
                    "use an asynchronous client, or asyncio.to_thread"
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
    await asyncio.sleep(0.002)  # the watch has begun
    await call()
    running = False
    await watching
    return longest


@check("A cancelled call ends at once, and disturbs no other", source="asyncio: CancelledError must pass")
async def cancellation(subject: SignerSubject) -> None:
    """Cancel signatures at different moments, while others are made."""
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
                "sign() swallows CancelledError and carries on: let it pass, also through cleaning up"
            )
        await sign_and_judge(signer, version, new_input())


async def _swallows(victim: asyncio.Task[bytes]) -> bool:
    """Whether the task ended well in spite of having been cancelled."""
    await asyncio.wait([victim], timeout=OBEY_SECONDS)
    if not victim.done():
        raise Nonconformity(
            f"a cancelled sign() goes on for more than {OBEY_SECONDS:g} s: let CancelledError pass, and "
            "wait for nothing"
        )
    return not victim.cancelled()


async def _must_be_good(task: asyncio.Task[bytes], version: KeyVersion, text: bytes) -> None:
    try:
        judge(version, text, await task)
    except (Exception, asyncio.CancelledError) as error:
        raise Nonconformity(
            f"when a call is cancelled, another one at the same time fails ({type(error).__name__}): "
            "shield what calls share"
        ) from error
