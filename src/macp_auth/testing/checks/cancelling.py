"""Cancellation: a call that its caller gave up."""

from __future__ import annotations

import asyncio
import time

from macp_auth.domain.keys import KeyVersion
from macp_auth.testing.bench import ends, new_input, sign_and_judge, signing_versions
from macp_auth.testing.checks.signatures import many_at_once
from macp_auth.testing.judge import judge
from macp_auth.testing.registry import Nonconformity, check
from macp_auth.testing.watched import OBEY_SECONDS, WatchedSubject

_TRIALS = 8
_ENOUGH_CANCELLED = 3


@check(
    "A cancelled call ends at once, and does not affect others",
    source="asyncio: CancelledError must propagate",
    needs=(many_at_once,),
)
async def cancellation(subject: WatchedSubject) -> None:
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
    if not await ends(victim):
        raise Nonconformity(
            f"a cancelled sign() continues for more than {OBEY_SECONDS:g} s: let CancelledError propagate, "
            "without waiting"
        )
    return not victim.cancelled()


async def _must_be_good(task: asyncio.Task[bytes], version: KeyVersion, text: bytes) -> None:
    try:
        judge(version, text, await task)
    except (Exception, asyncio.CancelledError) as error:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise  # the kit gave up
        raise Nonconformity(
            f"the cancellation of one call makes a concurrent one fail ({type(error).__name__}): shield "
            "what calls share"
        ) from error
