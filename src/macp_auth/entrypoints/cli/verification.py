"""Judges a token as verifiers do, check by check, with the texts of docs/troubleshooting.md.

The main verifier is the MACP runtime: the checks model it, as recorded from the real one
(tools/macp_runtime). It is lenient in places; a token that only it accepts is not valid, and the finding
says so. PyJWT verifies the signatures: the service does not use it to sign.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct

from macp_auth.domain.errors import InvalidScopes, InvalidSender, TokenTooLarge
from macp_auth.domain.key_set import MAX_TOKEN_BYTES
from macp_auth.domain.scopes import check_scopes
from macp_auth.domain.sender import SenderPolicy
from macp_auth.entrypoints.cli.runtime_json import (
    MAX_DEPTH,
    Members,
    decode_base64url,
    is_text,
    is_u64,
    parse,
    readable,
)
from macp_auth.entrypoints.cli.runtime_keys import KEY_TYPES, PublishedKey, candidates

STALE_CACHE = (
    "stale cache: the verifier's JWKS does not contain this kid. It cached the keys before this one was "
    "published, or the key was retired, or the token is from another service"
)
WRONG_SIGNATURE = (
    "stale cache: this kid now belongs to another key (with the ephemeral signer, after every restart), or "
    "the token was altered; mint a new one"
)
WRONG_ISSUER = "issuer: the verifier's issuer and MACP_AUTH_ISSUER differ; they must be exactly equal"
WRONG_AUDIENCE = "audience: the verifier's audience and MACP_AUTH_AUDIENCE differ; they must be exactly equal"
EXPIRED = "expired: mint a new token, sooner before use or with a longer ttl_seconds"
SKEW = "skew: minted in the future, so one of the two clocks is wrong; synchronise both (NTP)"
MALFORMED = "malformed: this is not a JWT that macp-auth minted; was it truncated or quoted?"
ALGORITHM = "algorithm: only RS256 and ES256 are minted; do not accept this token"
KEY_SIZE = (
    "key size: verifiers use RSA keys of 2048 to 8192 bits with an odd exponent from 3 to 2^31, and EC keys "
    "on P-256 (the MACP runtime also accepts 2041 bits and 2^33); sign with such a key"
)
PRIVATE_KEY = "private key: the JWKS contains this private key, so anyone can mint tokens; revoke the key now"
KEY_PURPOSE = (
    "key purpose: use, key_ops, alg or crv of the JWK excludes this signature; the MACP runtime ignores "
    "them, jose and others do not; correct the JWK"
)
SAME_KID = "same kid: two published keys have it, and verifiers differ in which they try; give each its own"
CRITICAL = (
    "critical: crit and b64 require an extension; a verifier that does not know it must refuse the token; "
    "the MACP runtime ignores them, and macp-auth never sets them"
)
UNREADABLE = (
    "unreadable: a member that the MACP runtime skips contains a lone surrogate, invalid UTF-8 or a number "
    "out of range, or is nested too deeply; other verifiers refuse the whole token"
)
NOT_YET = (
    "not yet: nbf is ahead of this clock, or not a time; the MACP runtime ignores it, PyJWT, jose and Envoy "
    "refuse the token until then; macp-auth never sets it"
)
WHOLE_SECONDS = (
    "whole seconds: exp is a fraction; the MACP runtime rounds it, a verifier that reads an integer refuses "
    "the token, and macp-auth mints whole seconds only"
)
LIFETIME = "lifetime: more than a year, which macp-auth never mints; do not accept this token"
SCOPE_TYPE = (
    "scope type: the runtime cannot read this value: can_start_sessions, can_manage_mode_registry and "
    "is_observer are booleans, allowed_modes is a list of strings, max_open_sessions is an integer from 0 to "
    "2^64-1; each may be null"
)
NO_SCOPES = (
    "no scopes: macp_scopes is missing or not an object, so the runtime may use its defaults: every mode, "
    "and sessions without limit; macp-auth always sets it, so another service minted this token"
)
SCOPE_NAME = "scope name: the runtime does not know this scope and uses its default; correct the name"
SENDER = (
    "sender: sub is empty, or has invisible characters; the MACP runtime accepts it, but macp-auth mints no "
    "such token"
)
REPEATED = (
    "repeated: verifiers differ in which of two members with the same name they read; macp-auth mints no "
    "such token"
)
TOO_LARGE = "too large: a gRPC peer may drop metadata of more than 8192 bytes; ask for fewer scopes"

_YEAR = 366 * 86_400
_YEAR_1, _YEAR_5138 = -6.2e10, 1e11
_SHOWN = 200  # characters of a claim; a whole token may be 8 KiB
_NO_POLICY = SenderPolicy()


def _optional(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def _bool(value: object) -> bool:
    return isinstance(value, bool)


# In the order of the runtime's struct: serde also reads a list, by position.
_SCOPES: Mapping[str, Callable[[object], bool]] = {
    "can_start_sessions": _optional(_bool),
    "can_manage_mode_registry": _optional(_bool),
    "is_observer": _optional(_bool),
    "allowed_modes": _optional(_texts),
    "max_open_sessions": _optional(is_u64),
}
_HEADER: Mapping[str, Callable[[object], bool]] = {
    "alg": is_text,
    **dict.fromkeys(["typ", "cty", "jku", "kid", "x5u", "x5t", "x5t#S256"], _optional(is_text)),
    "x5c": _optional(_texts),
    "jwk": lambda value: value is None,  # the runtime parses it without use; macp-auth never sets it
}
_READ_CLAIMS = {"sub", "macp_scopes", "exp", "nbf", "iss", "aud"}


class Expected(Struct, frozen=True):
    """How the verifier is configured."""

    issuer: str
    audience: str
    leeway: int
    """Seconds by which the two clocks may differ."""


class Finding(Struct, frozen=True, kw_only=True):
    """The result of one check."""

    check: str
    good: bool
    found: str
    advice: str = ""
    """The fault and its remedy; empty if ``good``."""
    runtime_accepts: bool = False
    """If not ``good``: whether the MACP runtime still accepts the token."""


class _Token(Struct, frozen=True):
    header: Members
    claims: Members
    signing_input: bytes
    signature: bytes


def judge(token: str, keys: Sequence[PublishedKey], expected: Expected, now: float) -> list[Finding]:
    """Return all findings at ``now``, in seconds since the epoch."""
    try:
        parts = _decode(token)
    except ValueError as error:
        return [_bad("format", str(error), MALFORMED)]
    return [
        *_size(token),
        *_readable(parts),
        *_header(parts.header),
        *_signature(parts, keys),
        *_claims(parts.claims, expected, now),
        *_repeated(parts),
    ]


def runtime_accepts(findings: Sequence[Finding]) -> bool:
    """Whether the MACP runtime accepts the token of these findings."""
    return all(finding.good or finding.runtime_accepts for finding in findings)


def _decode(token: str) -> _Token:
    if not token.isascii() or not token.isprintable():
        raise ValueError("characters that no token has")
    signing_input, _, signature = token.rpartition(".")
    header, dot, payload = signing_input.partition(".")
    if not dot:
        raise ValueError("not three parts with dots between them")
    try:
        header_bytes, payload_bytes, octets = map(decode_base64url, (header, payload, signature))
    except ValueError:
        raise ValueError("a part is not unpadded base64url") from None
    return _Token(
        _object("header", header_bytes), _object("payload", payload_bytes), signing_input.encode(), octets
    )


def _object(part: str, data: bytes) -> Members:
    try:
        value = parse(data)
    except ValueError:
        raise ValueError(f"the {part} is not JSON") from None
    if not isinstance(value, Members) or not all(map(is_text, value)):
        raise ValueError(f"the {part} is not a JSON object")
    return value


def _good(check: str, found: str) -> Finding:
    return Finding(check=check, good=True, found=found)


def _bad(check: str, found: str, advice: str) -> Finding:
    return Finding(check=check, good=False, found=found, advice=advice)


def _lenient(check: str, found: str, advice: str) -> Finding:
    """Report what the MACP runtime accepts, and other verifiers do not or should not."""
    return Finding(check=check, good=False, found=found, advice=advice, runtime_accepts=True)


def _shown(value: object) -> str:
    """Return ``value`` for a terminal, truncated; repr() escapes what is not printable."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _size(token: str) -> Iterator[Finding]:
    if len(token) > MAX_TOKEN_BYTES:
        yield _lenient("size", f"{len(token)} bytes", TOO_LARGE)


def _readable(token: _Token) -> Iterator[Finding]:
    for part, members in (("header", token.header), ("payload", token.claims)):
        if not readable(members):
            yield _lenient("format", f"a member of the {part}", UNREADABLE)


def _header(header: Members) -> Iterator[Finding]:
    alg = header.get("alg")
    if isinstance(alg, str) and alg in KEY_TYPES:
        yield _good("alg", _shown(alg))
    else:
        yield _bad("alg", _shown(alg), ALGORITHM)
    for name, fits in _HEADER.items():
        if name != "alg" and not fits(header.get(name)):
            yield _bad(name, _shown(header[name]), MALFORMED)
    for name, plain in (("crit", None), ("b64", True)):
        if header.get(name, plain) is not plain:
            yield _lenient(name, _shown(header[name]), CRITICAL)


def _signature(token: _Token, keys: Sequence[PublishedKey]) -> Iterator[Finding]:
    kid, alg = token.header.get("kid"), token.header.get("alg")
    if not isinstance(alg, str):
        return
    tried = candidates(keys, kid)
    signer = next((key for key in tried if key.verifies(alg, token.signing_input, token.signature)), None)
    known = [key for key in keys if key.kid is not None and key.kid == kid]
    if not known:
        finding = _lenient if signer else _bad
        yield finding("kid", f"{_shown(kid)} is not among the {len(keys)} published", STALE_CACHE)
        return
    yield _good("kid", _shown(kid))
    if len({key.kty for key in known}) < len(known):
        yield _lenient("kid", f"{len(known)} published keys have it", SAME_KID)
    if signer is None:
        unusable = not any(key.usable for key in known)
        why, advice = (
            ("the runtime cannot use the key", KEY_SIZE) if unusable else ("does not verify", WRONG_SIGNATURE)
        )
        yield _bad("signature", why, advice)
        return
    if not signer.usual:
        yield _lenient("key", "its size or its exponent", KEY_SIZE)
    if signer.private:
        yield _lenient("key", "contains the private key", PRIVATE_KEY)
    if members := signer.rules_out(alg):
        found = ", ".join(f"{name} is {_shown(signer.jwk.get(name))}" for name in members)
        yield _lenient("key", found, KEY_PURPOSE)
    yield _good("signature", "verifies")


def _claims(claims: Members, expected: Expected, now: float) -> Iterator[Finding]:
    yield _name("iss", claims, expected.issuer, WRONG_ISSUER)
    yield _name("aud", claims, expected.audience, WRONG_AUDIENCE)
    yield _expiry(claims, expected.leeway, now)
    yield _issued_at(claims, expected.leeway, now)
    yield from _not_before(claims, expected.leeway, now)
    yield from _subject(claims)
    yield from _scopes(claims)


def _name(name: str, claims: Members, expected: str, advice: str) -> Finding:
    """Judge ``iss`` or ``aud``; the runtime ignores a value that is not a string or a list of strings."""
    value = claims.get(name)
    found = f"{_shown(value)}; expected {_shown(expected)}"
    if is_text(value):
        return _good(name, _shown(value)) if value == expected else _bad(name, found, advice)
    if isinstance(value, list) and _texts(value):
        if expected not in value:
            return _bad(name, found, advice)
        return _good(name, _shown(value)) if name == "aud" else _lenient(name, found, advice)
    return _lenient(name, found, advice) if _depth_fits(value) else _bad(name, found, advice)


def _depth_fits(value: object, left: int = MAX_DEPTH - 1) -> bool:
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return left > 0 and all(_depth_fits(item, left - 1) for item in items)
    return True


def _expiry(claims: Members, leeway: int, now: float) -> Finding:
    value = claims.get("exp")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 2**64:
        return _bad("exp", "missing or not a time", MALFORMED)
    whole = math.floor(value + 0.5)
    left = value - now
    text = f"{_utc(value)}, {f'in {left:.0f} s' if left > 0 else f'{-left:.0f} s ago'}"
    if whole < math.floor(now) - leeway:
        return _bad("exp", text, EXPIRED)
    if left + leeway <= 0:  # in this second, the runtime accepts it; PyJWT and jose do not
        return _lenient("exp", text, EXPIRED)
    if isinstance(value, float):
        return _lenient("exp", text, WHOLE_SECONDS)
    issued = _seconds(claims.get("iat"))
    if value - (now if issued is None else issued) > _YEAR:
        return _lenient("exp", text, LIFETIME)
    return _good("exp", text if left > 0 else f"{text}, within the leeway")


def _issued_at(claims: Members, leeway: int, now: float) -> Finding:
    """Judge ``iat``, which the runtime does not read."""
    issued = _seconds(claims.get("iat"))
    if issued is None:
        return _lenient("iat", "missing or not a time", MALFORMED)
    if (ahead := issued - now) > leeway:
        return _lenient("iat", f"{_utc(issued)}, {ahead:.0f} s ahead of this clock", SKEW)
    return _good("iat", _utc(issued))


def _not_before(claims: Members, leeway: int, now: float) -> Iterator[Finding]:
    """Judge ``nbf``; the runtime ignores its time, but refuses a list or an object."""
    if "nbf" not in claims:
        return
    value = claims["nbf"]
    begins = _seconds(value)
    if isinstance(value, dict | list) and value:
        yield _bad("nbf", _shown(value), NOT_YET)
    elif begins is None:
        yield _lenient("nbf", _shown(value), NOT_YET)
    elif begins - now > leeway:
        yield _lenient("nbf", f"{_utc(begins)}, {begins - now:.0f} s ahead of this clock", NOT_YET)
    else:
        yield _good("nbf", _utc(begins))


def _subject(claims: Members) -> Iterator[Finding]:
    subject = claims.get("sub")
    if not is_text(subject):
        yield _bad("sub", _shown(subject), MALFORMED)
        return
    try:
        _NO_POLICY.check(subject)
    except InvalidSender:
        yield _lenient("sub", _shown(subject), SENDER)
    else:
        yield _good("sub", _shown(subject))


def _scopes(claims: Members) -> Iterator[Finding]:
    scopes = claims.get("macp_scopes")
    if scopes is None:
        yield _lenient("scopes", "missing", NO_SCOPES)
    elif isinstance(scopes, list):
        fits = len(scopes) <= len(_SCOPES) and _fit(dict(zip(_SCOPES, scopes, strict=False)))
        yield (_lenient if fits else _bad)("scopes", _shown(scopes), NO_SCOPES)
    elif not isinstance(scopes, Members) or not all(map(is_text, scopes)):
        yield _bad("scopes", _shown(scopes), NO_SCOPES)
    elif not _fit(scopes):
        wrong = {name: scopes[name] for name in _SCOPES if name in scopes and not _SCOPES[name](scopes[name])}
        yield _bad("scopes", _shown(wrong), SCOPE_TYPE)
    else:
        yield _scope_names(scopes)


def _fit(scopes: Mapping[str, object]) -> bool:
    return all(fits(scopes.get(name)) for name, fits in _SCOPES.items())


def _scope_names(scopes: Members) -> Finding:
    try:
        check_scopes(scopes)
    except InvalidScopes as error:
        return _lenient("scopes", f"{_shown(dict(scopes))}: {error}", SCOPE_NAME)
    except TokenTooLarge as error:
        return _lenient("scopes", str(error), TOO_LARGE)
    return _good("scopes", _shown(dict(scopes)))


def _repeated(token: _Token) -> Iterator[Finding]:
    scopes = token.claims.get("macp_scopes")
    read = (
        token.header.repeated & set(_HEADER)
        | token.claims.repeated & _READ_CLAIMS
        | (scopes.repeated & set(_SCOPES) if isinstance(scopes, Members) else set())
    )
    if read:
        yield _bad("members", ", ".join(map(_shown, sorted(read))), REPEATED)
    elif found := sorted({*_repeats(token.header), *_repeats(token.claims)}):
        yield _lenient("members", ", ".join(map(_shown, found)), REPEATED)


def _repeats(value: object) -> Iterator[str]:
    waiting = [value]
    while waiting:  # not recursive: a foreign claim may be nested to any depth
        item = waiting.pop()
        if isinstance(item, Members):
            yield from item.repeated
        if isinstance(item, dict | list):
            waiting += item.values() if isinstance(item, dict) else item


def _seconds(value: object) -> float | None:
    """Return a NumericDate (RFC 7519, section 2) that a calendar can show, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not _YEAR_1 < value < _YEAR_5138:
        return None
    return float(value)


def _utc(seconds: float) -> str:
    if seconds >= _YEAR_5138:
        return "after the year 5138"
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
