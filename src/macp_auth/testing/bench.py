"""Helpers of several checks."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from macp_auth.adapters.sandbox import SIGN_SECONDS
from macp_auth.domain.encoding import base64url_bytes
from macp_auth.domain.errors import SignerError
from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.signer import Signer
from macp_auth.testing.judge import judge
from macp_auth.testing.registry import Nonconformity

T = TypeVar("T")
OBEY_SECONDS = 1.0
"""How soon a call must end after its cancellation."""
BACK_SECONDS = 5.0
"""How soon a signer must sign again after its backend is restored."""


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


async def attempt(call: Awaitable[T], operation: str, seconds: float = SIGN_SECONDS) -> T | SignerError:
    """Return the result of ``call``, or its SignerError.

    Raises:
        Nonconformity: it raises another error, or takes longer than ``seconds`` and ignores cancellation.
    """
    task = asyncio.ensure_future(call)
    done, _ = await asyncio.wait([task], timeout=seconds)
    if not done:
        task.cancel()
        if not (await asyncio.wait([task], timeout=OBEY_SECONDS))[0]:
            raise Nonconformity(
                f"{operation} hangs, and continues after its cancellation: do not catch CancelledError"
            )
        if task.cancelled():
            return TimedOut("not in time")
    if task.cancelled():
        raise Nonconformity(f"{operation} raised CancelledError without a cancellation: translate it")
    try:
        return task.result()
    except SignerError as error:
        return error
    except Exception as error:
        raise Nonconformity(
            f"{operation} raised {type(error).__name__}, which is not a SignerError: translate it where the "
            "backend is called"
        ) from error


class TimedOut(SignerError):
    """The call took too long, and ended after its cancellation."""


async def until(condition: Callable[[], Awaitable[T | None]], within: float) -> T | None:
    """Poll ``condition``, and return its first true result, or None after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not (found := await condition()) and time.monotonic() < deadline:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0.05)
    return found
