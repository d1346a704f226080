"""Helpers of several checks."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from macp_auth.domain.encoding import base64url_bytes
from macp_auth.domain.errors import SignerError
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.signer import Signer
from macp_auth.testing.judge import judge
from macp_auth.testing.registry import Nonconformity
from macp_auth.testing.watched import OBEY_SECONDS

T = TypeVar("T")
BACK_SECONDS = 5.0
"""How soon a signer must sign again after its backend is restored."""
_TURNS = 50


def new_input(payload: object = None, *, kid: str = "k", algorithm: str = "ES256") -> bytes:
    """Return a new JWS signing input (RFC 7515, section 5.1)."""
    header = json.dumps({"alg": algorithm, "kid": kid, "typ": "JWT"}).encode()
    body = json.dumps({"sub": "agent://conformance", "nonce": os.urandom(16).hex(), "of": payload}).encode()
    return base64url_bytes(header) + b"." + base64url_bytes(body)


async def signing_versions(signer: Signer) -> list[KeyVersion]:
    """Return the versions that can sign; at least one.

    Raises:
        Nonconformity: there is none.
    """
    versions = await signer.key_versions()
    able = [version for version in versions if version.can_sign]
    if not able:
        raise Nonconformity(
            f"key_versions() returns {len(versions)} versions, none with can_sign=True: tokens can't be "
            "minted"
        )
    return able


async def sign_and_judge(
    signer: Signer, version: KeyVersion, signing_input: bytes, versions: Sequence[KeyVersion] = ()
) -> bytes:
    """Sign with ``version``, and return the signature.

    Raises:
        Nonconformity: the signature is wrong.
    """
    signature = await signer.sign(version.kid, signing_input)
    judge(version, signing_input, signature, versions)
    return signature


async def attempt(call: Awaitable[T], operation: str, seconds: float) -> T | SignerError:
    """Return the result of ``call``, its SignerError, or TimedOut if it was cancelled after ``seconds``.

    Raises:
        Nonconformity: it ignores its cancellation.
    """
    task = asyncio.ensure_future(call)
    if not (await asyncio.wait([task], timeout=seconds))[0]:
        task.cancel()
        if not await ends(task):
            raise Nonconformity(
                f"{operation} hangs, and continues after its cancellation: do not catch CancelledError"
            )
        if task.cancelled():
            return TimedOut("not in time")
    try:
        return task.result()
    except SignerError as error:
        return error


async def ends(task: asyncio.Future[T]) -> bool:
    """Return whether ``task`` ends within ``OBEY_SECONDS``, or 50 turns of a loop that calls block."""
    for _ in range(_TURNS):
        if task.done():
            break
        await asyncio.sleep(OBEY_SECONDS / _TURNS)
    return task.done()


class TimedOut(SignerError):
    """The call took too long, and ended after its cancellation."""


async def until(condition: Callable[[], Awaitable[T | None]], within: float) -> T | None:
    """Poll ``condition``, and return its first true result, or None after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not (found := await condition()) and time.monotonic() < deadline:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0.05)
    return found


def compare(before: Sequence[KeyVersion], after: Sequence[KeyVersion], over: str) -> None:
    """Check that two readings agree in kids, keys, order and times.

    Raises:
        Nonconformity: they do not; the text says after what.
    """
    keys = {version.kid: version for version in before}
    for version in after:
        if version.kid not in keys:
            raise Nonconformity(
                f"after {over}, there is a new kid, {version.kid!r}: derive kids from the key, and keep them"
            )
        same = keys[version.kid]
        if same.public_jwk != version.public_jwk:
            raise Nonconformity(
                f"after {over}, the kid {version.kid!r} names another key: verifiers with the first in "
                "their cache reject every token; give each key a new kid, for example with its thumbprint"
            )
        times = [(each.created_at, each.not_before, each.not_after) for each in (same, version)]
        if times[0] != times[1]:
            raise Nonconformity(
                f"the times of {version.kid!r} differ after {over}: return the backend's times, or None; a "
                "key with a created_at of now never becomes old enough to sign"
            )
        if same != version:
            raise Nonconformity(f"{version.kid!r} differs after {over}, although nothing was changed")
    if len(after) < len(before):
        raise Nonconformity(f"after {over}, a version is missing")
    if [version.kid for version in after] != list(keys):
        raise Nonconformity(
            f"after {over}, the versions have another order, which decides which one signs: sort them"
        )
