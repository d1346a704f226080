"""Lifecycle: opening and closing a signer."""

from __future__ import annotations

import asyncio
import threading

from macp_auth.adapters.sandbox import SIGN_SECONDS
from macp_auth.testing.bench import (
    OBEY_SECONDS,
    TimedOut,
    attempt,
    new_input,
    sign_and_judge,
    signing_versions,
    until,
)
from macp_auth.testing.registry import Nonconformity, check
from macp_auth.testing.subject import SignerSubject


@check("aclose() is idempotent, and works at any time", source="the Signer port")
async def close_is_idempotent(subject: SignerSubject) -> None:
    """Close a used signer three times, and an unused one twice."""
    prepared = await subject.prepare()
    used, unused = subject.open(prepared), subject.open(prepared)
    await sign_and_judge(used, (await signing_versions(used))[0], new_input())
    for signer, times in ((used, 3), (unused, 2)):
        for _ in range(times):
            try:
                outcome = await attempt(signer.aclose(), "aclose()")
            except Nonconformity as fault:
                raise Nonconformity(f"closed again or unused: {fault}") from fault
            if outcome is not None:
                raise Nonconformity(f"aclose() raised or returned {type(outcome).__name__}: return None")


@check(
    "A closed signer raises a SignerError, and does not sign",
    source="the Signer port: it has released the backend",
)
async def closed_signer_refuses(subject: SignerSubject) -> None:
    """Sign and read after closing."""
    signer = subject.open(await subject.prepare())
    version = (await signing_versions(signer))[0]
    await signer.aclose()
    outcome = await attempt(signer.sign(version.kid, new_input()), "sign() after aclose()")
    if not isinstance(outcome, Exception):
        raise Nonconformity(
            "sign() works after aclose(): release the key or the connection, and raise SignerUnavailable"
        )
    await attempt(signer.key_versions(), "key_versions() after aclose()")


@check("aclose() ends pending calls of sign()", source="the service must be able to stop")
async def close_while_signing(subject: SignerSubject) -> None:
    """Close during calls of sign(): each ends with a signature or a SignerError."""
    signer = subject.open(await subject.prepare())
    version = (await signing_versions(signer))[0]
    signing = [asyncio.create_task(signer.sign(version.kid, new_input())) for _ in range(8)]
    await asyncio.sleep(0)
    outcome = await attempt(signer.aclose(), "aclose() while signing")
    if outcome is not None:
        raise Nonconformity(f"aclose() while signing ended with {type(outcome).__name__}")
    for task in signing:
        if isinstance(await attempt(task, "sign() while aclose()"), TimedOut):
            raise Nonconformity(
                f"{SIGN_SECONDS:g} s after aclose(), a call of sign() has not ended: fail pending calls"
            )


@check("No task or thread is left after aclose()", source="the Signer port: release the backend")
async def nothing_is_left(subject: SignerSubject) -> None:
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
    own = "asyncio_"  # threads of the loop's executor, which ends with the loop
    return [
        *(f"the task {task.get_name()}" for task in asyncio.all_tasks() - tasks),
        *(f"the thread {t.name}" for t in set(threading.enumerate()) - threads if not t.name.startswith(own)),
    ]
