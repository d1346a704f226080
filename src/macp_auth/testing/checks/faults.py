"""Faults: the behaviour of a signer when its backend fails."""

from __future__ import annotations

import asyncio
import time

from macp_auth.domain.errors import SignerError, SignerRefused, SignerUnavailable
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.signer import Signer
from macp_auth.testing.bench import (
    BACK_SECONDS,
    TimedOut,
    attempt,
    new_input,
    sign_and_judge,
    signing_versions,
    until,
)
from macp_auth.testing.checks.cancelling import cancellation
from macp_auth.testing.checks.signatures import unknown_kid
from macp_auth.testing.judge import judge
from macp_auth.testing.registry import Nonconformity, check
from macp_auth.testing.watched import WatchedSubject

_PROMPT = 0.75  # of the deadline


@check(
    "With the backend down, calls raise SignerUnavailable; with the backend restored, the signer signs again",
    source="the Signer port; docs/api.md: 503 is worth a retry",
    needs=(unknown_kid,),
)
async def backend_down_and_back(subject: WatchedSubject) -> None:
    """Stop the backend while a signer is open, and restore it."""
    seconds = subject.plugin.sign_seconds
    async with subject.opened() as signer:
        version = (await signing_versions(signer))[0]
        await subject.break_backend()
        for _ in range(2):  # the first failure may leave state behind
            await _sign_without_backend(subject, signer, version, "down")
            reading = attempt(signer.key_versions(), "key_versions() with the backend down", seconds)
            if isinstance(await reading, TimedOut):
                raise Nonconformity(
                    f"with the backend down, key_versions() does not end within {seconds:g} s"
                )
        await _signs_again(subject, signer, version)


@check(
    "A signer that starts while the backend is down works when the backend is up",
    source="such a worker answers 503 and retries",
    needs=(backend_down_and_back,),
)
async def backend_down_at_start(subject: WatchedSubject) -> None:
    """Open a signer while the backend is down; it must sign when the backend is restored."""
    seconds = subject.plugin.sign_seconds
    prepared = await subject.prepare()
    await subject.break_backend()
    try:
        signer = subject.open(prepared)
    except SignerUnavailable:
        return  # the host opens it again at the next refresh

    async def reads() -> bool:
        return not isinstance(await attempt(signer.key_versions(), "key_versions()", seconds), SignerError)

    try:
        await attempt(signer.key_versions(), "key_versions() with the backend down", seconds)
        await subject.restore_backend()
        if not await until(reads, BACK_SECONDS):
            raise Nonconformity(
                f"{BACK_SECONDS:g} s after the backend is up, key_versions() still fails: connect again"
            )
        await sign_and_judge(signer, (await signing_versions(signer))[0], new_input())
    finally:
        await signer.aclose()


@check(
    "With a hanging backend, a call ends at the deadline, by itself or when it is cancelled",
    source="docs/signer-reference.md: the host abandons a call at its deadline",
    needs=(cancellation,),
)
async def hang_is_bounded(subject: WatchedSubject) -> None:
    """Make the backend hang, and sign several times at once. A call may block until its own timeout."""
    async with subject.opened() as signer:
        version = (await signing_versions(signer))[0]
        await subject.hang_backend()
        await asyncio.gather(*(_sign_without_backend(subject, signer, version, "hanging") for _ in range(4)))
        await _signs_again(subject, signer, version)


@check(
    "With the backend refusing, sign() raises SignerRefused at once; later, it signs again",
    source="docs/signer-reference.md: a refusal lasts, and is no failure for the circuit breaker",
    needs=(unknown_kid,),
)
async def backend_refuses(subject: WatchedSubject) -> None:
    """Make the backend refuse to sign: the call must not retry until its deadline."""
    seconds = subject.plugin.sign_seconds
    async with subject.opened() as signer:
        version = (await signing_versions(signer))[0]
        await subject.refuse_backend()
        began, text = time.monotonic(), new_input()
        outcome = await attempt(signer.sign(version.kid, text), "sign() with the backend refusing", seconds)
        took = time.monotonic() - began
        if isinstance(outcome, TimedOut) or took > seconds * _PROMPT:
            raise Nonconformity(
                f"with the backend refusing, sign() takes {took:.1f} s: a retry does not help, so raise "
                "SignerRefused at the first refusal"
            )
        if isinstance(outcome, SignerError) and not isinstance(outcome, SignerRefused):
            raise Nonconformity(
                f"with the backend refusing, sign() raised {type(outcome).__name__}: a retry does not "
                "help, so raise SignerRefused"
            )
        if isinstance(outcome, bytes):
            judge(version, text, outcome)
        await attempt(signer.key_versions(), "key_versions() with the backend refusing", seconds)
        await _signs_again(subject, signer, version)


@check(
    "With garbage from the backend, calls raise a SignerError; later, the signer signs again",
    source="the Signer port; a proxy's error page is no answer either",
    needs=(unknown_kid,),
)
async def backend_answers_garbage(subject: WatchedSubject) -> None:
    """Make the backend answer garbage. The host detects a wrong signature, but not keys that are missing."""
    seconds = subject.plugin.sign_seconds
    async with subject.opened() as signer:
        version = (await signing_versions(signer))[0]
        before = {each.kid: each.public_jwk for each in await signer.key_versions()}
        await subject.garble_backend()
        signing = attempt(
            signer.sign(version.kid, new_input()), "sign() with garbage from the backend", seconds
        )
        outcome: object = await signing
        if isinstance(outcome, TimedOut):
            raise Nonconformity(f"with garbage from the backend, sign() does not end within {seconds:g} s")
        if not isinstance(outcome, bytes | SignerError):
            raise Nonconformity(
                f"with garbage from the backend, sign() returned a {type(outcome).__name__}: raise "
                "SignerUnavailable"
            )
        reading = attempt(signer.key_versions(), "key_versions() with garbage from the backend", seconds)
        versions = await reading
        if isinstance(versions, TimedOut):
            raise Nonconformity(
                f"with garbage from the backend, key_versions() does not end within {seconds:g} s"
            )
        if (
            not isinstance(versions, SignerError)
            and {each.kid: each.public_jwk for each in versions} != before
        ):
            raise Nonconformity(
                "with garbage from the backend, key_versions() returns other keys: raise SignerUnavailable, "
                "or a key that is missing is withdrawn"
            )
        await _signs_again(subject, signer, version)


async def _sign_without_backend(
    subject: WatchedSubject, signer: Signer, version: KeyVersion, state: str
) -> None:
    """Sign; a correct signature passes too: some signers need their backend only for new keys."""
    text, seconds = new_input(), subject.plugin.sign_seconds
    outcome = await attempt(signer.sign(version.kid, text), f"sign() with the backend {state}", seconds)
    if isinstance(outcome, bytes):
        judge(version, text, outcome)
    elif not isinstance(outcome, SignerUnavailable | TimedOut):
        raise Nonconformity(
            f"with the backend {state}, sign() raised {type(outcome).__name__}: a retry may help, so raise "
            "SignerUnavailable"
        )
    elif isinstance(outcome, TimedOut) and state == "down":
        raise Nonconformity(
            f"with the backend down, sign() does not end within {seconds:g} s: set a timeout on its "
            "connections"
        )


async def _signs_again(subject: WatchedSubject, signer: Signer, version: KeyVersion) -> None:
    await subject.restore_backend()
    text = new_input()

    async def signed() -> bytes | None:
        signing = signer.sign(version.kid, text)
        outcome = await attempt(signing, "sign() with the backend restored", subject.plugin.sign_seconds)
        return outcome if isinstance(outcome, bytes) else None

    signature = await until(signed, BACK_SECONDS)
    if signature is None:
        raise Nonconformity(
            f"{BACK_SECONDS:g} s after the backend is restored, sign() still fails: connect again, without "
            "a restart"
        )
    judge(version, text, signature)
