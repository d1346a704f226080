"""What several checks do with a signer."""

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
"""How soon a call must end after it was cancelled: nothing is left to wait for."""
BACK_SECONDS = 5.0
"""How soon a signer must sign again when its backend is back."""


def new_input(payload: object = None, *, kid: str = "k", algorithm: str = "ES256") -> bytes:
    """Return a JWS signing input that never was before (RFC 7515, section 5.1)."""
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
            f"key_versions() offers {len(versions)} versions, none with can_sign=True: nothing could be "
            "minted"
        )
    return able


async def sign_and_judge(
    signer: Signer, version: KeyVersion, signing_input: bytes, versions: Sequence[KeyVersion] = ()
) -> bytes:
    """Have ``version`` sign, and return the signature if it is good.

    Raises:
        Nonconformity: it is not.
    """
    signature = await signer.sign(version.kid, signing_input)
    judge(version, signing_input, signature, versions)
    return signature


async def attempt(call: Awaitable[T], operation: str, seconds: float = SIGN_SECONDS) -> T | SignerError:
    """Return what ``call`` returns, or the domain's error that it raises.

    Raises:
        Nonconformity: it raises another error, or is not done in ``seconds`` plus the time to obey.
    """
    task = asyncio.ensure_future(call)
    done, _ = await asyncio.wait([task], timeout=seconds)
    if not done:
        task.cancel()
        if not (await asyncio.wait([task], timeout=OBEY_SECONDS))[0]:
            raise Nonconformity(
                f"{operation} hangs, and goes on when it was cancelled: let CancelledError pass"
            )
        if task.cancelled():
            return TimedOut("not in time")
    if task.cancelled():
        raise Nonconformity(f"{operation} raised CancelledError, and nobody had cancelled it: translate it")
    try:
        return task.result()
    except SignerError as error:
        return error
    except Exception as error:
        raise Nonconformity(
            f"{operation} raised {type(error).__name__}, which is no SignerError: translate it where the "
            "backend is called"
        ) from error


class TimedOut(SignerError):
    """The call took too long, and obeyed when it was cancelled."""


async def until(condition: Callable[[], Awaitable[T | None]], within: float) -> T | None:
    """Return what ``condition`` returns as soon as it is true, or None after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not (found := await condition()) and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)
    return found
