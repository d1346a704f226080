"""Faults: the behaviour of a signer when its backend fails."""

from __future__ import annotations

import asyncio
import time

from macp_auth.adapters.sandbox import SIGN_SECONDS
from macp_auth.domain.errors import SignerUnavailable
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.signer import Signer
from macp_auth.testing.bench import (
    BACK_SECONDS,
    OBEY_SECONDS,
    TimedOut,
    attempt,
    new_input,
    sign_and_judge,
    signing_versions,
    until,
)
from macp_auth.testing.judge import judge
from macp_auth.testing.registry import Nonconformity, check
from macp_auth.testing.subject import SignerSubject


@check(
    "With the backend down, calls raise SignerUnavailable; with the backend restored, the signer signs again",
    source="the Signer port; docs/api.md: 503 is worth a retry",
)
async def backend_down_and_back(subject: SignerSubject) -> None:
    """Stop the backend while a signer is open, and restore it."""
    async with subject.opened() as signer:
        version = (await signing_versions(signer))[0]
        await subject.break_backend()
        for _ in range(2):  # the first failure may leave state behind
            await _sign_without_backend(signer, version, "down")
            outcome = await attempt(signer.key_versions(), "key_versions() with the backend down")
            if isinstance(outcome, TimedOut):
                raise Nonconformity(
                    f"with the backend down, key_versions() does not end within {SIGN_SECONDS:g} s"
                )
        await _signs_again(subject, signer, version)


@check(
    "A signer that starts while the backend is down works when the backend is up",
    source="such a worker answers 503 and retries",
)
async def backend_down_at_start(subject: SignerSubject) -> None:
    """Open a signer while the backend is down; it must sign when the backend is restored."""
    prepared = await subject.prepare()
    await subject.break_backend()
    try:
        signer = subject.open(prepared)
    except SignerUnavailable:
        return  # the host opens it again at the next refresh
    try:
        await attempt(signer.key_versions(), "key_versions() with the backend down")
        await subject.restore_backend()
        if not await until(lambda: _reads(signer), BACK_SECONDS):
            raise Nonconformity(
                f"{BACK_SECONDS:g} s after the backend is up, key_versions() still fails: connect again"
            )
        await sign_and_judge(signer, (await signing_versions(signer))[0], new_input())
    finally:
        await signer.aclose()


@check(
    "With a hanging backend, no call runs past the deadline",
    source=f"the host's deadline for a signature is {SIGN_SECONDS:g} s",
)
async def hang_is_bounded(subject: SignerSubject) -> None:
    """Make the backend hang: each call must end or be cancelled, and the loop must not be blocked."""
    async with subject.opened() as signer:
        version = (await signing_versions(signer))[0]
        await subject.hang_backend()
        began = time.monotonic()
        await asyncio.gather(*(_sign_without_backend(signer, version, "hanging") for _ in range(4)))
        if (took := time.monotonic() - began) > SIGN_SECONDS + OBEY_SECONDS + 1:
            raise Nonconformity(
                f"with the backend hanging, sign() blocks the event loop: it took {took:.1f} s"
            )
        await _signs_again(subject, signer, version)


async def _sign_without_backend(signer: Signer, version: KeyVersion, state: str) -> None:
    """Sign; a correct signature passes too: some signers need their backend only for new keys."""
    text = new_input()
    outcome = await attempt(signer.sign(version.kid, text), f"sign() with the backend {state}")
    if isinstance(outcome, bytes):
        judge(version, text, outcome)
    elif not isinstance(outcome, SignerUnavailable | TimedOut):
        raise Nonconformity(
            f"with the backend {state}, sign() raised {type(outcome).__name__}: a retry may help, so raise "
            "SignerUnavailable"
        )
    elif isinstance(outcome, TimedOut) and state == "down":
        raise Nonconformity(
            f"with the backend down, sign() does not end within {SIGN_SECONDS:g} s: set a timeout on its "
            "connections"
        )


async def _signs_again(subject: SignerSubject, signer: Signer, version: KeyVersion) -> None:
    await subject.restore_backend()
    text = new_input()

    async def signed() -> bytes | None:
        outcome = await attempt(signer.sign(version.kid, text), "sign() with the backend restored")
        return outcome if isinstance(outcome, bytes) else None

    signature = await until(signed, BACK_SECONDS)
    if signature is None:
        raise Nonconformity(
            f"{BACK_SECONDS:g} s after the backend is restored, sign() still fails: connect again, without "
            "a restart"
        )
    judge(version, text, signature)


async def _reads(signer: Signer) -> bool:
    return not isinstance(await attempt(signer.key_versions(), "key_versions()"), Exception)
