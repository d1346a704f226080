"""What a verifier would say of a token, check by check, in the words of docs/troubleshooting.md.

The judge is PyJWT, a library that has no part in making our tokens.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import jwt
from msgspec import Struct

_ALGORITHMS = ["RS256", "ES256"]
_YEAR_5138 = 1e11

STALE_CACHE = (
    "stale cache: the verifier's JWKS does not have this kid. It cached the keys before this one was "
    "published, or the key was retired, or the token is from another service"
)
WRONG_SIGNATURE = (
    "stale cache: this kid now names another key (an ephemeral key does that at every restart), or the "
    "token was altered; mint a new one"
)
WRONG_ISSUER = "issuer: the verifier's issuer and MACP_AUTH_ISSUER differ; they must be equal to the letter"
WRONG_AUDIENCE = (
    "audience: the verifier's audience and MACP_AUTH_AUDIENCE differ; they must be equal to the letter"
)
EXPIRED = "expired: mint a new token, sooner before use or with a longer ttl_seconds"
SKEW = "skew: minted in the future, so one of the two clocks is wrong; synchronise both (NTP)"
MALFORMED = "malformed: this is no JWT that macp-auth minted; was it cut off or quoted?"
ALGORITHM = "algorithm: only RS256 and ES256 are minted; do not accept this token"


class Expected(Struct, frozen=True):
    """How the verifier is configured."""

    issuer: str
    audience: str
    leeway: int
    """Seconds by which the two clocks may differ."""


class Finding(Struct, frozen=True, kw_only=True):
    """One check."""

    check: str
    good: bool
    found: str
    advice: str = ""
    """What is wrong and what mends it; empty if nothing is."""


def judge(token: str, keys: Mapping[str, jwt.PyJWK], expected: Expected, now: float) -> list[Finding]:
    """Return every finding at ``now``, in seconds since the epoch. Claims are shown of any token."""
    if not token.isascii():
        return [_bad("format", "characters that no token has", MALFORMED)]
    try:
        header = jwt.get_unverified_header(token)
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        return [_bad("format", str(error), MALFORMED)]
    return [
        _algorithm(header),
        *_signature(token, header, keys),
        _text_claim("iss", claims, expected.issuer, WRONG_ISSUER),
        _text_claim("aud", claims, expected.audience, WRONG_AUDIENCE),
        _expiry(claims, expected.leeway, now),
        _issued_at(claims, expected.leeway, now),
        _subject(claims),
    ]


def _good(check: str, found: str) -> Finding:
    return Finding(check=check, good=True, found=found)


def _bad(check: str, found: str, advice: str) -> Finding:
    return Finding(check=check, good=False, found=found, advice=advice)


def _algorithm(header: Mapping[str, Any]) -> Finding:
    found = header.get("alg")
    return _good("alg", repr(found)) if found in _ALGORITHMS else _bad("alg", repr(found), ALGORITHM)


def _signature(token: str, header: Mapping[str, Any], keys: Mapping[str, jwt.PyJWK]) -> list[Finding]:
    kid = header.get("kid")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        return [_bad("kid", f"{kid!r} is not among the {len(keys)} published", STALE_CACHE)]
    try:
        jwt.PyJWS().decode(token, key, algorithms=_ALGORITHMS)
    except jwt.InvalidTokenError as error:
        return [_good("kid", repr(kid)), _bad("signature", str(error), WRONG_SIGNATURE)]
    return [_good("kid", repr(kid)), _good("signature", "verifies")]


def _text_claim(name: str, claims: Mapping[str, Any], expected: str, advice: str) -> Finding:
    found = claims.get(name)
    if found == expected:
        return _good(name, repr(found))
    return _bad(name, f"{found!r}; expected {expected!r}", advice)


def _expiry(claims: Mapping[str, Any], leeway: int, now: float) -> Finding:
    expires = _seconds(claims.get("exp"))
    if expires is None:
        return _bad("exp", "missing or no time", MALFORMED)
    left = expires - now
    if left > 0:
        return _good("exp", f"{_utc(expires)}, in {left:.0f} s")
    if left + leeway > 0:
        return _good("exp", f"{_utc(expires)}, {-left:.0f} s ago, within the leeway")
    return _bad("exp", f"{_utc(expires)}, {-left:.0f} s ago", EXPIRED)


def _issued_at(claims: Mapping[str, Any], leeway: int, now: float) -> Finding:
    issued = _seconds(claims.get("iat"))
    if issued is None:
        return _bad("iat", "missing or no time", MALFORMED)
    if (ahead := issued - now) > leeway:
        return _bad("iat", f"{_utc(issued)}, {ahead:.0f} s ahead of this clock", SKEW)
    return _good("iat", _utc(issued))


def _subject(claims: Mapping[str, Any]) -> Finding:
    subject = claims.get("sub")
    return (
        _good("sub", repr(subject))
        if isinstance(subject, str) and subject
        else _bad("sub", repr(subject), MALFORMED)
    )


def _seconds(value: object) -> float | None:
    """Return a NumericDate (RFC 7519, section 2) that a calendar can show, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _YEAR_5138:
        return None
    return float(value)


def _utc(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
