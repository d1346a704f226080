"""Measures for how long a call blocks the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from macp_auth import Signer
from macp_auth.testing import SignerSubject

STALL_SECONDS = 0.05
"""The most: all requests of the worker wait meanwhile."""
_TRIALS = 8


async def assert_loop_is_free(subject: SignerSubject) -> None:
    """Built-in signers run in the process of the service. The minimum of several trials excludes noise."""
    async with subject.opened() as signer:
        kid = (await signer.key_versions())[0].kid
        for call in (lambda: _sign(signer, kid), signer.key_versions):
            assert min([await _longest_stall(call) for _ in range(_TRIALS)]) < STALL_SECONDS


async def _sign(signer: Signer, kid: str) -> bytes:
    return await signer.sign(kid, b"header.payload")


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
