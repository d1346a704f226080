"""Reads a private JWK or JWK Set.

Messages name a key by its position and never show a member's content.
"""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from msgspec import Struct

from macp_auth.adapters import jose
from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.json_objects import unique_members
from macp_auth.domain.keys import MAX_KID_CHARS, is_kid

DEFAULT_KID = "key-1"
"""The kid that the reference service gives to a JWK without one."""
_YEAR_5138 = 1e11  # seconds since the epoch; a larger value is in milliseconds


class JWK(Struct, frozen=True):
    """One key of the document."""

    kid: str
    key: jose.PrivateKey | jose.PublicKey
    can_sign: bool
    issued_at: float | None
    """``iat``, in seconds since the epoch."""
    not_before: float | None
    """``nbf``."""
    expires: float | None
    """``exp``."""

    @property
    def private(self) -> jose.PrivateKey | None:
        """The private key, if present."""
        return self.key if isinstance(self.key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) else None

    @property
    def public(self) -> jose.PublicKey:
        """The public key."""
        key = self.key
        return key.public_key() if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) else key


def read_jwks(text: str, source: str) -> list[JWK]:
    """Return the keys of ``text``, in their order; at least one can sign.

    Args:
        text: a private JWK, or a JWK Set.
        source: the document's name in messages: its variable or path.

    Raises:
            SignerMisconfigured: a key could not sign a verifiable token, or none may sign.
    """
    keys = [_jwk(members, where) for where, members in _members(text, source)]
    if len({key.kid for key in keys}) < len(keys):
        raise SignerMisconfigured(f"{source}: two keys have the same kid; every kid must name one key")
    if not any(key.can_sign for key in keys):
        raise SignerMisconfigured(
            f"{source} has no private key that may sign (a public key has no 'd' member, "
            'and key_ops, where given, must hold "sign")'
        )
    return keys


def _members(text: str, source: str) -> list[tuple[str, dict[str, Any]]]:
    """Return each JWK with the words that locate it in an error message."""
    try:
        document = json.loads(text, object_pairs_hook=unique_members)
    except (ValueError, RecursionError):
        raise SignerMisconfigured(
            f"{source} is not valid JSON; it must be a private JWK or a JWK Set "
            "(check the quoting, and that nothing was cut off)"
        ) from None
    if not isinstance(document, dict):
        raise SignerMisconfigured(f"{source} must be a JSON object: a private JWK or a JWK Set")
    if "keys" not in document:
        return [(source, document)]
    keys = document["keys"]
    if not isinstance(keys, list) or not keys or not all(isinstance(jwk, dict) for jwk in keys):
        raise SignerMisconfigured(f"{source}: 'keys' must be a list of at least one JWK")
    return [(f"{source}: key {position} of {len(keys)}", jwk) for position, jwk in enumerate(keys, 1)]


def _jwk(members: dict[str, Any], where: str) -> JWK:
    kid = members.get("kid", DEFAULT_KID)
    if not isinstance(kid, str) or not is_kid(kid):
        raise SignerMisconfigured(f"{where}: kid must be a string of 1 to {MAX_KID_CHARS} visible characters")
    try:
        key = jose.load(members)
    except jose.InvalidJWK as error:
        raise SignerMisconfigured(f"{where}: {error}") from None
    is_private = isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return JWK(
        kid,
        key,
        can_sign=is_private and jose.may_sign(members),
        issued_at=_time(members, "iat", where),
        not_before=_time(members, "nbf", where),
        expires=_time(members, "exp", where),
    )


def _time(members: dict[str, Any], name: str, where: str) -> float | None:
    value = members.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _YEAR_5138:
        raise SignerMisconfigured(f"{where}: {name} must be a time in seconds since the epoch")
    return float(value)
