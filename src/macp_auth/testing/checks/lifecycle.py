"""Lifecycle: what a signer uses up, and closing it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from macp_auth.testing.bench import TimedOut, attempt, new_input, sign_and_judge, signing_versions, until
from macp_auth.testing.checks.signatures import many_at_once, signs_in_time
from macp_auth.testing.registry import Nonconformity, check
from macp_auth.testing.watched import CLOSE_SECONDS, OBEY_SECONDS, WatchedSubject

_WARM_UP = 10
_ROUND = 20
_ROUND_SECONDS = 3.0
_FEWEST = 6  # calls in a round of a slow signer
_OWN_THREADS = "asyncio_"  # of the loop's executor, which ends with the loop


@check(
    "Descriptors, threads and tasks do not grow with the number of calls",
    source="a service runs for months",
    needs=(many_at_once,),
)
async def nothing_grows(subject: WatchedSubject) -> None:
    """Count them before and after many calls, which may open a few; one for every other call is a leak."""
    async with subject.opened() as signer:
        kid = (await signing_versions(signer))[0].kid
        for operation, call in (
            ("sign()", lambda: signer.sign(kid, new_input())),
            ("key_versions()", signer.key_versions),
        ):
            await _repeat(call, _WARM_UP)
            before = _held()
            calls = await _repeat(call, _ROUND)
            for kind, number in _held().items():
                if number - before[kind] >= calls // 2:
                    raise Nonconformity(
                        f"{calls} calls of {operation} leave {number - before[kind]} more {kind}: release "
                        "what each call opens"
                    )


async def _repeat(call: Callable[[], Awaitable[object]], times: int) -> int:
    """Call so many times, or fewer if that takes long; return how many."""
    ends = time.monotonic() + _ROUND_SECONDS
    for done in range(times):
        if done >= _FEWEST and time.monotonic() > ends:
            return done
        await call()
    return times


def _held() -> dict[str, int]:
    gc.collect()  # what is only waiting for that is no leak
    return {
        "descriptors": len(list(Path("/dev/fd").iterdir())),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
    }


@check("aclose() is idempotent", source="the Signer port", needs=(signs_in_time,))
async def close_is_idempotent(subject: WatchedSubject) -> None:
    """Close a used signer three times, and an unused one twice."""
    prepared = await subject.prepare()
    used, unused = subject.open(prepared), subject.open(prepared)
    await sign_and_judge(used, (await signing_versions(used))[0], new_input())
    for signer, times in ((used, 3), (unused, 2)):
        for number in range(times):
            try:
                outcome = await attempt(signer.aclose(), "aclose()", CLOSE_SECONDS)
            except Nonconformity as fault:
                raise Nonconformity(f"call {number + 1} of aclose(): {fault}") from fault
            if outcome is not None:
                raise Nonconformity(
                    f"call {number + 1} of aclose() raised {type(outcome).__name__}: let it do nothing"
                )


@check(
    "A closed signer raises a SignerError, and does not sign",
    source="the Signer port: it has released the backend",
    needs=(close_is_idempotent,),
)
async def closed_signer_refuses(subject: WatchedSubject) -> None:
    """Sign and read after closing."""
    seconds = subject.plugin.sign_seconds
    signer = subject.open(await subject.prepare())
    version = (await signing_versions(signer))[0]
    await signer.aclose()
    outcome = await attempt(signer.sign(version.kid, new_input()), "sign() after aclose()", seconds)
    if not isinstance(outcome, Exception):
        raise Nonconformity(
            "sign() works after aclose(): release the key or the connection, and raise SignerUnavailable"
        )
    await attempt(signer.key_versions(), "key_versions() after aclose()", seconds)


@check(
    "aclose() ends pending calls of sign()",
    source="the service must be able to stop",
    needs=(close_is_idempotent, many_at_once),
)
async def close_while_signing(subject: WatchedSubject) -> None:
    """Close during calls of sign(): each ends with a signature or a SignerError."""
    seconds = subject.plugin.sign_seconds
    signer = subject.open(await subject.prepare())
    version = (await signing_versions(signer))[0]
    signing = [asyncio.create_task(signer.sign(version.kid, new_input())) for _ in range(8)]
    await asyncio.sleep(0)
    outcome = await attempt(signer.aclose(), "aclose() while signing", CLOSE_SECONDS)
    if outcome is not None:
        raise Nonconformity(f"aclose() while signing ended with {type(outcome).__name__}")
    for task in signing:
        if isinstance(await attempt(task, "sign() while aclose()", seconds), TimedOut):
            raise Nonconformity(
                f"{seconds:g} s after aclose(), a call of sign() has not ended: fail pending calls"
            )


@check(
    "No task or thread is left after aclose()",
    source="the Signer port: release the backend",
    needs=(close_is_idempotent, nothing_grows),
)
async def nothing_is_left(subject: WatchedSubject) -> None:
    """Compare the tasks and threads before opening and after closing."""
    prepared = await subject.prepare()
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    async with subject.opened(prepared) as signer:
        await sign_and_judge(signer, (await signing_versions(signer))[0], new_input())

    async def is_clean() -> bool:
        return not _left(tasks, threads)

    if not await until(is_clean, OBEY_SECONDS):
        raise Nonconformity(
            f"still running after aclose(): {', '.join(_left(tasks, threads))}; end it in aclose()"
        )


def _left(tasks: set[asyncio.Task[object]], threads: set[threading.Thread]) -> list[str]:
    more = set(threading.enumerate()) - threads
    return [
        *(f"the task {task.get_name()}" for task in asyncio.all_tasks() - tasks),
        *(f"the thread {thread.name}" for thread in more if not thread.name.startswith(_OWN_THREADS)),
    ]
