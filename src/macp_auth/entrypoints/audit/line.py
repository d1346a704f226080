"""A mint attempt to one line of JSON. docs/audit.md says what each field means."""

from __future__ import annotations

import hashlib
import time
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from macp_auth.domain.keyring import MintedToken
from macp_auth.domain.minting import TokenRequest
from macp_auth.entrypoints.http.attempts import MintAttempt

MINTED, REFUSED, LOST = "minted", "refused", "lost"
MAX_LINE_BYTES = 4096
"""Linux's PIPE_BUF (pipe(7)): so much goes into a pipe whole, whoever else writes to it."""
MAX_SENDER_CHARS = 256
SHORT_SENDER_CHARS = 64
"""In a line that would be too long: with the longest kid, it fits."""
_EXACT = 2**53  # beyond it, readers of JSON differ (RFC 8259, section 6)
_NOTHING = TokenRequest(scopes=None)
_SHA256 = hashlib.sha256()  # making one takes OpenSSL 2.7 us longer than copying one, between two signatures


class AuditLine(Struct, frozen=True, kw_only=True, gc=False):  # it is gone before a collector could find it
    """What is recorded of one attempt. A field without a value is null, and never left out."""

    time: str
    event: str
    status: int
    reason: str | None
    request_id: str
    caller: str | None
    sender: str | None
    scopes: Any
    ttl: float | None
    exp: int | None
    kid: str | None
    token_sha256: str | None
    cut: tuple[str, ...]


class LostLines(Struct, frozen=True, kw_only=True):
    """What is recorded, when lines can be written again, of those that could not be."""

    time: str
    event: str = LOST
    lines: int


def audit_line(attempt: MintAttempt) -> bytes:
    """Return the line of ``attempt``, of no more than :data:`MAX_LINE_BYTES`."""
    line = _record(attempt)
    try:
        encoded = _encode(line)
    except (ValueError, OverflowError, RecursionError):  # a refused request may hold what JSON can't
        encoded = b""
    if not encoded or len(encoded) >= MAX_LINE_BYTES:
        encoded = _encode(_shortened(line))
    return encoded + b"\n"


def lost_line(lines: int, at: float) -> bytes:
    """Return the line which says that so many are missing before it."""
    return _encode(LostLines(time=timestamp(at), lines=lines)) + b"\n"


def fingerprint(token: str) -> str:
    """Return the SHA-256 of a token in compact serialization, in hexadecimal."""
    digest = _SHA256.copy()
    digest.update(token.encode())
    return digest.hexdigest()


def timestamp(at: float) -> str:
    """Return a time in ISO 8601, in UTC, to the millisecond: text in this form sorts as time does."""
    return _written(round(at * 1000))


@lru_cache(maxsize=4)  # under load, several tokens share a millisecond
def _written(milliseconds: int) -> str:
    second, millisecond = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{millisecond:03d}Z"


def _record(attempt: MintAttempt) -> AuditLine:
    if isinstance(attempt.outcome, MintedToken):
        return _minted(attempt, attempt.outcome)
    return _refused(attempt, attempt.request or _NOTHING)


def _minted(attempt: MintAttempt, minted: MintedToken) -> AuditLine:
    claims = minted.claims
    sender, cut = _bounded(claims.sub)
    return AuditLine(
        time=timestamp(attempt.at),
        event=MINTED,
        status=200,
        reason=None,
        request_id=attempt.context.id,
        caller=_caller(attempt),
        sender=sender,
        scopes=claims.macp_scopes,
        ttl=claims.exp - claims.iat,
        exp=claims.exp,
        kid=minted.kid,
        token_sha256=fingerprint(minted.token),
        cut=cut,
    )


def _refused(attempt: MintAttempt, asked: TokenRequest) -> AuditLine:
    sender, cut = _bounded(asked.sender) if isinstance(asked.sender, str) else (None, ())
    return AuditLine(
        time=timestamp(attempt.at),
        event=REFUSED,
        status=attempt.status,
        reason=attempt.reason,
        request_id=attempt.context.id,
        caller=_caller(attempt),
        sender=sender,
        scopes=asked.scopes,
        ttl=_number(asked.ttl_seconds),
        exp=None,
        kid=None,
        token_sha256=None,
        cut=cut,
    )


def _caller(attempt: MintAttempt) -> str | None:
    client = attempt.scope["client"]
    return client[0] if client else None


def _bounded(sender: str) -> tuple[str, tuple[str, ...]]:
    return (sender, ()) if len(sender) <= MAX_SENDER_CHARS else (sender[:MAX_SENDER_CHARS], ("sender",))


def _number(asked: object) -> float | None:
    if isinstance(asked, int | float) and not isinstance(asked, bool) and abs(asked) < _EXACT:
        return asked
    return None


def _shortened(line: AuditLine) -> AuditLine:
    sender = line.sender and line.sender[:SHORT_SENDER_CHARS].encode(errors="replace").decode()
    cut = ("scopes",) if sender == line.sender else ("sender", "scopes")
    return msgspec.structs.replace(line, sender=sender, scopes=None, cut=cut)


_encode = msgspec.json.Encoder().encode
