"""Lifecycle: opening, closing, and what is left."""

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


@check("aclose() may be called again, and at any time", source="the Signer port")
async def close_is_idempotent(subject: SignerSubject) -> None:
    """Close a used signer three times, and one that was never used."""
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
                raise Nonconformity(f"aclose() raised or returned {type(outcome).__name__}: it must just end")


@check(
    "A closed signer raises a SignerError, and signs no more",
    source="the Signer port: it has let go of the backend",
)
async def closed_signer_refuses(subject: SignerSubject) -> None:
    """Sign and read after closing."""
    signer = subject.open(await subject.prepare())
    version = (await signing_versions(signer))[0]
    await signer.aclose()
    outcome = await attempt(signer.sign(version.kid, new_input()), "sign() after aclose()")
    if not isinstance(outcome, Exception):
        raise Nonconformity(
            "sign() works after aclose(): drop the key or the connection, and raise SignerUnavailable"
        )
    await attempt(signer.key_versions(), "key_versions() after aclose()")


@check("A signing that is under way ends when the signer is closed", source="a service that stops must stop")
async def close_while_signing(subject: SignerSubject) -> None:
    """Close while signatures are made: each ends, with a signature or a SignerError."""
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
                f"{SIGN_SECONDS:g} s after aclose(), a sign() has not ended: fail those that are under way"
            )


@check("Nothing runs on after aclose()", source="the Signer port: let go of the backend")
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
            f"after aclose() there is still {', '.join(_left(tasks, threads))}: end it in aclose()"
        )


def _left(tasks: set[asyncio.Task[object]], threads: set[threading.Thread]) -> list[str]:
    own = "asyncio_"  # threads of the loop's own executor, which ends with the loop
    return [
        *(f"the task {task.get_name()}" for task in asyncio.all_tasks() - tasks),
        *(f"the thread {t.name}" for t in set(threading.enumerate()) - threads if not t.name.startswith(own)),
    ]
