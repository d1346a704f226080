"""Tokens in, verdicts out: what the judges that are written in Python share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import msgspec

ISSUER = "macp-auth-service"
AUDIENCE = "macp-runtime"

Verdict = tuple[float, str | None]
"""When a token was judged, and why it was rejected; None if it was accepted."""


def judge_each(refusal: Callable[[str], str | None]) -> Callable[[list[str]], list[Verdict]]:
    """A judge of many tokens from one that says why it refuses one."""

    def judge(tokens: list[str]) -> list[Verdict]:
        verdicts = []
        for token in tokens:
            reason = refusal(token)
            verdicts.append((time.time(), reason))
        return verdicts

    return judge


def serve(judge: Callable[[list[str]], list[Verdict]]) -> None:
    """Judge what comes on standard input until it ends."""
    for line in sys.stdin.buffer:
        tokens = msgspec.json.decode(line, type=list[str])
        sys.stdout.buffer.write(msgspec.json.encode(judge(tokens)) + b"\n")
        sys.stdout.buffer.flush()
