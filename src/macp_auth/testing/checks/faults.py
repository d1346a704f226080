"""Faults: what a signer does when its backend does not."""

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
    "A backend that is down is SignerUnavailable, and back when it is",
    source="the Signer port; docs/api.md: 503 is worth a retry",
)
async def backend_down_and_back(subject: SignerSubject) -> None:
    """Take the backend down under an open signer, and bring it back."""
    async with subject.opened() as signer:
        version = (await signing_versions(signer))[0]
        await subject.break_backend()
        for _ in range(2):  # a second failure finds what the first one left
            await _sign_without_backend(signer, version, "down")
            outcome = await attempt(signer.key_versions(), "key_versions() with the backend down")
            if isinstance(outcome, TimedOut):
                raise Nonconformity(
                    f"key_versions() does not end in {SIGN_SECONDS:g} s when the backend is down"
                )
        await _signs_again(subject, signer, version)


@check(
    "A backend that is down at the start is no end",
    source="a worker that starts then answers 503 and asks again",
)
async def backend_down_at_start(subject: SignerSubject) -> None:
    """Open a signer while the backend is down; it must sign when the backend is there."""
    prepared = await subject.prepare()
    await subject.break_backend()
    try:
        signer = subject.open(prepared)
    except SignerUnavailable:
        return  # the host opens it again with the next reading
    try:
        await attempt(signer.key_versions(), "key_versions() with the backend down")
        await subject.mend_backend()
        if not await until(lambda: _reads(signer), BACK_SECONDS):
            raise Nonconformity(
                f"{BACK_SECONDS:g} s after the backend came up, key_versions() still fails: ask it anew"
            )
        await sign_and_judge(signer, (await signing_versions(signer))[0], new_input())
    finally:
        await signer.aclose()


@check(
    "A backend that hangs holds no call beyond the deadline",
    source=f"the host gives a signature {SIGN_SECONDS:g} s",
)
async def hang_is_bounded(subject: SignerSubject) -> None:
    """Let the backend hang, and see that the call ends or obeys, and that the loop turns."""
    async with subject.opened() as signer:
        version = (await signing_versions(signer))[0]
        await subject.hang_backend()
        began = time.monotonic()
        await asyncio.gather(*(_sign_without_backend(signer, version, "hanging") for _ in range(4)))
        if (took := time.monotonic() - began) > SIGN_SECONDS + OBEY_SECONDS + 1:
            raise Nonconformity(
                f"with the backend hanging, sign() blocks the event loop: {took:.1f} s went by"
            )
        await _signs_again(subject, signer, version)


async def _sign_without_backend(signer: Signer, version: KeyVersion, state: str) -> None:
    """Sign; a good signature is fine too, for there are signers that need their backend for new keys only."""
    text = new_input()
    outcome = await attempt(signer.sign(version.kid, text), f"sign() with the backend {state}")
    if isinstance(outcome, bytes):
        judge(version, text, outcome)
    elif not isinstance(outcome, SignerUnavailable | TimedOut):
        raise Nonconformity(
            f"with the backend {state}, sign() raised {type(outcome).__name__}: it is worth asking again, "
            "so raise SignerUnavailable"
        )
    elif isinstance(outcome, TimedOut) and state == "down":
        raise Nonconformity(
            f"with the backend down, sign() does not end in {SIGN_SECONDS:g} s: give its connections a "
            "timeout"
        )


async def _signs_again(subject: SignerSubject, signer: Signer, version: KeyVersion) -> None:
    await subject.mend_backend()
    text = new_input()

    async def signed() -> bytes | None:
        outcome = await attempt(signer.sign(version.kid, text), "sign() after the backend came back")
        return outcome if isinstance(outcome, bytes) else None

    signature = await until(signed, BACK_SECONDS)
    if signature is None:
        raise Nonconformity(
            f"{BACK_SECONDS:g} s after the backend came back, sign() still fails: connect anew, without a "
            "restart"
        )
    judge(version, text, signature)


async def _reads(signer: Signer) -> bool:
    return not isinstance(await attempt(signer.key_versions(), "key_versions()"), Exception)
