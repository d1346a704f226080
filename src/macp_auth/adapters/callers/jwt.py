"""``jwt``: JSON Web Tokens of trusted issuers (RFC 7519), by the rules of RFC 8725.

Nothing in a token chooses a key but its ``kid``, and only among the keys of the issuer that its ``iss`` names
exactly. ``jku``, ``x5u``, ``x5c`` and ``jwk`` are ignored. The issuer and its key are found before a
signature is verified, and the claims are checked after it: what the log says of them is the issuer's word.

PyJWT does not verify the tokens: it accepts repeated members, has its own clock, and takes 1 ms for a token
of 16 KB before it verifies the signature, so that garbage would cost more than a minted token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from msgspec import Struct

from macp_auth.adapters import jose
from macp_auth.adapters.callers.issuer_keys import IssuerKeys
from macp_auth.domain.callers import Caller, CallerAuthenticator, Credentials, Method
from macp_auth.domain.encoding import from_base64url
from macp_auth.domain.errors import BadCredential, CredentialFault
from macp_auth.domain.json_objects import unique_members
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.visible import is_visible

MAX_CHARS = 16 * 1024
"""Kubernetes' tokens have 1 KB, and those of an identity provider with many groups 4 KB."""
LEEWAY_SECONDS = 30.0
"""For the clock of the issuer (RFC 7519, section 4.1.4), as MACP_AUTH_CLOCK_SKEW_SECONDS by default."""
REMEMBERED = 4096
"""Accepted tokens; one takes 0.5 KB."""
_MAX_TIME = 2**53  # RFC 8259, section 6: readers agree on integers up to here
_DOTS = 2  # RFC 7515, section 3.1


class _Accepted(Struct, frozen=True):
    """A token that was verified."""

    caller: Caller
    ends: float
    """When it is no longer accepted, in seconds since the epoch."""
    issuer: IssuerKeys
    kid: str | None
    algorithm: Algorithm
    key: jose.PublicKey

    def holds(self, now: float) -> bool:
        """Whether verifying it again would give the same."""
        return now < self.ends and self.issuer.find(self.kid, self.algorithm) is self.key


class JWTMethod(CallerAuthenticator):
    """Authenticates by the issuer and the subject of the token.

    Accepted tokens are remembered by their digest, until they expire or their key is no longer the issuer's.

    Args:
        subjects: the callers' names, by the issuer's :attr:`Issuer.name` and ``sub``.
        issuers: the issuers and their keys.
        now: returns seconds since the epoch.
    """

    def __init__(
        self,
        subjects: Mapping[tuple[str, str], str],
        issuers: Iterable[IssuerKeys],
        now: Callable[[], float],
    ) -> None:
        self._subjects = subjects
        self._issuers = {keys.issuer.issuer: keys for keys in issuers}
        self._now = now
        self._remembered: dict[bytes, _Accepted] = {}  # in the order of their last use

    def authenticate(self, credentials: Credentials) -> Caller | None:
        """Return the caller that the token names."""
        token = credentials.bearer
        if token is None or token.count(".") != _DOTS:
            return None
        if len(token) > MAX_CHARS or not token.isascii():
            _refuse(CredentialFault.MALFORMED)
        digest = hashlib.sha256(token.encode("ascii")).digest()
        now = self._now()
        accepted = self._remembered.pop(digest, None)
        if accepted is None or not accepted.holds(now):
            accepted = self._verified(token, now)
        self._remembered[digest] = accepted
        if len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        return accepted.caller

    def _verified(self, token: str, now: float) -> _Accepted:
        signing_input, _, signature_text = token.rpartition(".")
        header_text, _, claims_text = signing_input.partition(".")
        header, claims = _json_object(header_text), _json_object(claims_text)
        signature = _octets(signature_text)
        issuer = self._issuers.get(_text(claims, "iss"))
        if issuer is None:
            _refuse(CredentialFault.UNKNOWN_ISSUER)
        if "crit" in header:  # RFC 7515, section 4.1.11: none of its extensions is understood
            _refuse(CredentialFault.MALFORMED)
        if header.get("alg") not in issuer.issuer.algorithms:
            _refuse(CredentialFault.WRONG_ALGORITHM)
        algorithm = Algorithm(header["alg"])
        kid = _text(header, "kid") if "kid" in header else None
        if (key := issuer.find(kid, algorithm)) is None:
            _refuse(CredentialFault.UNKNOWN_KEY)
        if not jose.verifies(key, signing_input.encode("ascii"), signature):
            _refuse(CredentialFault.BAD_SIGNATURE)
        ends = _check_claims(claims, issuer.issuer.audience, now)
        subject = _text(claims, "sub")
        if (name := self._subjects.get((issuer.issuer.name, subject))) is None:
            _refuse(CredentialFault.UNKNOWN_CALLER)
        return _Accepted(Caller(name, Method.JWT, subject), ends, issuer, kid, algorithm, key)


def _check_claims(claims: Mapping[str, Any], audience: str, now: float) -> float:
    """Return when the token is no longer accepted (RFC 7519, sections 4.1.3 to 4.1.6)."""
    if (expiry := _time(claims, "exp")) is None:
        _refuse(CredentialFault.MALFORMED)
    if (ends := expiry + LEEWAY_SECONDS) <= now:
        _refuse(CredentialFault.EXPIRED)
    for name in ("nbf", "iat"):
        if (begins := _time(claims, name)) is not None and begins > now + LEEWAY_SECONDS:
            _refuse(CredentialFault.NOT_YET_VALID)
    audiences = claims.get("aud", [])
    if isinstance(audiences, str):
        audiences = [audiences]
    if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
        _refuse(CredentialFault.MALFORMED)
    if audience not in audiences:
        _refuse(CredentialFault.WRONG_AUDIENCE)
    return ends


def _json_object(segment: str) -> dict[str, Any]:
    try:
        text = _octets(segment).decode()
        members = json.loads(text, object_pairs_hook=unique_members, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        _refuse(CredentialFault.MALFORMED)
    return members


def _octets(segment: str) -> bytes:
    try:
        return from_base64url(segment)
    except ValueError:
        _refuse(CredentialFault.MALFORMED)


def _text(members: Mapping[str, Any], name: str) -> str:
    """Return a string without NUL, lone surrogates and what else nobody can see."""
    value = members.get(name)
    if not isinstance(value, str) or not value or not is_visible(value):
        _refuse(CredentialFault.MALFORMED)
    return value


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TIME:
        _refuse(CredentialFault.MALFORMED)
    return float(value)


def _refuse(fault: CredentialFault) -> NoReturn:
    raise BadCredential(fault)


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("not JSON")
