"""Encodes a mint event as one line of JSON. docs/audit.md explains the fields."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from macp_auth.adapters.audit.chain import MAX_MEMBERS_BYTES
from macp_auth.domain.callers import Caller, Method
from macp_auth.domain.claims import Claims
from macp_auth.domain.errors import InvalidRequest
from macp_auth.domain.minting import MintedToken, MintEvent, TokenRequest
from macp_auth.domain.scopes import KNOWN_SCOPES
from macp_auth.domain.visible import escaped

MINTED, REFUSED, REFUSED_SUMMARY, DROPPED = "minted", "refused", "refused-summary", "dropped"
MAX_LINE_BYTES = 4096
"""Linux's PIPE_BUF (pipe(7)): the largest atomic write to a pipe. Includes the members of the chain."""
_MAX_RECORD_BYTES = MAX_LINE_BYTES - MAX_MEMBERS_BYTES
MAX_SENDER_CHARS = 256
"""For a refused request; the sender of a token is never truncated."""
SHORT_SENDER_CHARS = 64
"""For a refused request whose line would still be too long."""
MAX_CALLER_CHARS, MAX_GRANT_CHARS = 64, 129
"""The names of the callers file are no longer: a grant's is the caller's, a slash, and one of its own."""
SENDER, SCOPES, UNKNOWN_SCOPES, SUBJECT = "sender", "scopes", "unknown_scopes", "subject"
"""The values of ``truncated``; ``unknown_scopes`` are all scopes that the runtime does not read."""
_EXACT = 2**53  # above it, JSON readers differ (RFC 8259, section 6)
_NOTHING = TokenRequest(scopes=None)
_SHA256 = hashlib.sha256()  # creating one between two signatures takes OpenSSL 2.7 us longer than copying one


class LineTooLong(InvalidRequest):
    """The token's sender and scopes do not fit into one audit line."""

    reason = "audit-line-too-large"


class AuditLine(Struct, frozen=True, kw_only=True, gc=False):  # freed before the garbage collector would run
    """The record of one event. A field without a value is null, never absent.

    Only the last four are absent, all together, if the caller was not authenticated.
    """

    time: str
    event: str
    status: int
    reason: str | None
    request_id: str
    caller: str | None
    """The name of the caller; the client's address if the caller was not authenticated. No name is like an
    address: a name begins with a letter and has no colon."""
    sender: str | None
    scopes: Any
    ttl: float | None
    exp: int | None
    kid: str | None
    token_sha256: str | None
    truncated: tuple[str, ...]
    method: str | UnsetType = UNSET
    subject: str | UnsetType | None = UNSET
    grant: str | UnsetType | None = UNSET
    client: str | UnsetType | None = UNSET
    """The client's address."""


class DroppedLines(Struct, frozen=True, kw_only=True):
    """The record of dropped lines of tokens, written when the log recovers."""

    time: str
    event: str = DROPPED
    since: str
    lines: int


class RefusedSummary(Struct, frozen=True, kw_only=True):
    """The record of refused requests without a line of their own."""

    time: str
    event: str = REFUSED_SUMMARY
    since: str
    reasons: Mapping[str, int]


def audit_line(event: MintEvent) -> bytes:
    """Return the line of ``event``, with room for the members of the chain.

    If :func:`check_line` accepted a token, its line has the sender and the scopes that the runtime reads
    in full.
    """
    line = _record(event)
    return (_fitting(line) or _fitting_part(line)) + b"\n"


def check_line(claims: Claims, kid: str, *, with_caller: bool = False) -> None:
    """Check that the sender and scopes of a token fit into one line.

    Args:
        claims: of the token.
        kid: of the token.
        with_caller: whether the line names an authenticated caller.

    Raises:
        LineTooLong: they do not fit.
    """
    longest, room = (_LONGEST_WITH_CALLER, _ROOM_WITH_CALLER) if with_caller else (_LONGEST, _ROOM)
    modes = claims.macp_scopes.get("allowed_modes") or ()
    characters = len(claims.sub) + len(kid) + sum(map(len, modes)) + len(modes)
    if _MAX_BYTES_PER_CHARACTER * characters <= room:
        return
    scopes = _known(claims.macp_scopes)
    try:
        size = len(_encoded(msgspec.structs.replace(longest, sender=claims.sub, scopes=scopes, kid=kid)))
    except UnicodeEncodeError:
        return  # a lone surrogate: minting rejects it with a clearer error
    if size >= _MAX_RECORD_BYTES:
        whole = size + 1 + MAX_MEMBERS_BYTES
        raise LineTooLong(
            f"sender and scopes would make an audit line of {whole} bytes; the limit is {MAX_LINE_BYTES}"
        )


def dropped_line(lines: int, since: float, at: float) -> bytes:
    """Return the line that reports how many lines of tokens were dropped since ``since``."""
    return _encoded(DroppedLines(time=timestamp(at), since=timestamp(since), lines=lines)) + b"\n"


def summary_line(reasons: Mapping[str, int], since: float, at: float) -> bytes:
    """Return the line that reports how many refused requests have no line, by reason."""
    return _encoded(RefusedSummary(time=timestamp(at), since=timestamp(since), reasons=reasons)) + b"\n"


def fingerprint(token: str) -> str:
    """Return the hexadecimal SHA-256 of a token in compact serialization."""
    digest = _SHA256.copy()
    digest.update(token.encode())
    return digest.hexdigest()


def timestamp(at: float) -> str:
    """Return a time in ISO 8601, UTC, to the millisecond; these texts sort by time."""
    return _written(round(at * 1000))


@lru_cache(maxsize=4)  # under load, several tokens share a millisecond
def _written(milliseconds: int) -> str:
    second, millisecond = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{millisecond:03d}Z"


def _record(event: MintEvent) -> AuditLine:
    if event.minted is not None:
        line = _minted(event, event.minted)
    else:
        line = _refused(event, event.request or _NOTHING)
    return line if event.caller is None else _called(line, event.caller, event.grant)


def _called(line: AuditLine, caller: Caller, grant: str | None) -> AuditLine:
    return msgspec.structs.replace(
        line,
        caller=caller.name,
        method=caller.method,
        subject=caller.subject,
        grant=grant,
        client=line.caller,
    )


def _minted(event: MintEvent, minted: MintedToken) -> AuditLine:
    claims = minted.claims
    return AuditLine(
        time=timestamp(event.at),
        event=MINTED,
        status=200,
        reason=None,
        request_id=event.request_id,
        caller=event.client,
        sender=claims.sub,
        scopes=claims.macp_scopes,
        ttl=claims.exp - claims.iat,
        exp=claims.exp,
        kid=minted.kid,
        token_sha256=fingerprint(minted.token),
        truncated=(),
    )


def _refused(event: MintEvent, asked: TokenRequest) -> AuditLine:
    sender, truncated = _bounded(asked.sender) if isinstance(asked.sender, str) else (None, ())
    return AuditLine(
        time=timestamp(event.at),
        event=REFUSED,
        status=event.status,
        reason=event.reason,
        request_id=event.request_id,
        caller=event.client,
        sender=sender,
        scopes=asked.scopes,
        ttl=_number(asked.ttl_seconds),
        exp=None,
        kid=None,
        token_sha256=None,
        truncated=truncated,
    )


def _bounded(sender: str) -> tuple[str, tuple[str, ...]]:
    return (sender, ()) if len(sender) <= MAX_SENDER_CHARS else (sender[:MAX_SENDER_CHARS], (SENDER,))


def _number(asked: object) -> float | None:
    if isinstance(asked, int | float) and not isinstance(asked, bool) and abs(asked) < _EXACT:
        return asked
    return None


def _known(scopes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: scopes[name] for name in KNOWN_SCOPES if name in scopes}


def _without_unknown_scopes(line: AuditLine) -> AuditLine:
    if not isinstance(line.scopes, dict):
        return line
    truncated = (*line.truncated, UNKNOWN_SCOPES)
    return msgspec.structs.replace(line, scopes=_known(line.scopes), truncated=truncated)


def _without_subject(line: AuditLine) -> AuditLine:
    if not isinstance(line.subject, str):
        return line
    return msgspec.structs.replace(line, subject=None, truncated=(*line.truncated, SUBJECT))


def _shortened(line: AuditLine) -> AuditLine:
    sender = line.sender and line.sender[:SHORT_SENDER_CHARS].encode(errors="replace").decode()
    truncated: tuple[str, ...] = (SCOPES,) if sender == line.sender else (SENDER, SCOPES)
    if SUBJECT in line.truncated:
        truncated += (SUBJECT,)
    return msgspec.structs.replace(line, sender=sender, scopes=None, truncated=truncated)


def _fitting_part(line: AuditLine) -> bytes:
    """Return as much of ``line`` as fits."""
    known = _without_unknown_scopes(line)
    without_subject = _without_subject(known)
    return _fitting(known) or _fitting(without_subject) or _encoded(_shortened(without_subject))


def _fitting(line: AuditLine) -> bytes | None:
    try:
        encoded = _encoded(line)
    except (ValueError, OverflowError, RecursionError):  # a refused request may hold anything
        return None
    return encoded if len(encoded) < _MAX_RECORD_BYTES else None


def _encoded(line: Struct) -> bytes:
    """Return ``line`` as JSON without terminal control characters."""
    encoded = _encode(line)
    if encoded.isascii() and b"\x7f" not in encoded:  # msgspec escapes characters below the space
        return encoded
    return escaped(encoded.decode()).encode()


_encode = msgspec.json.Encoder().encode
_LONGEST = AuditLine(
    time=timestamp(0),
    event=MINTED,
    status=200,
    reason=None,
    request_id="r" * 128,
    caller="c" * 64,  # an IPv6 address with an interface name has 62 (netinet/in.h, net/if.h)
    sender="",
    scopes=dict.fromkeys(KNOWN_SCOPES),
    ttl=_EXACT,
    exp=_EXACT,
    kid="",
    token_sha256="0" * 64,
    truncated=(UNKNOWN_SCOPES,),
)
"""The longest line of a token, without the parts of unbounded length: sender, allowed modes, kid."""
_LONGEST_WITH_CALLER = msgspec.structs.replace(
    _LONGEST,
    caller="c" * MAX_CALLER_CHARS,
    method=max(Method, key=len),
    subject=None,
    grant="g" * MAX_GRANT_CHARS,
    client=_LONGEST.caller,
    truncated=(UNKNOWN_SCOPES, SUBJECT),
)
_MAX_BYTES_PER_CHARACTER = 12  # two escapes; a mode's quotes and comma count as one character
_NUMBERS_BYTES = 32  # two of 20 digits in place of null
_ROOM = _MAX_RECORD_BYTES - _NUMBERS_BYTES - len(_encoded(_LONGEST))
_ROOM_WITH_CALLER = _MAX_RECORD_BYTES - _NUMBERS_BYTES - len(_encoded(_LONGEST_WITH_CALLER))
