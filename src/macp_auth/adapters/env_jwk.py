"""``env-jwk``: private keys from one environment variable.

Settings:
    ``MACP_AUTH_SIGNING_KEY_JSON``  a private JWK, or a JWK Set with at least one. Every key's
        public half is published; a public-only key in a set is published for verification.
    ``MACP_AUTH_SIGNING_KID``  which key of a set signs; unset, the first private one.
    ``MACP_AUTH_SIGNING_ALG``  if set, the signing key must be of this algorithm.
Privileges: none. The key is readable by whoever can read the process's environment: prefer a
    backend that keeps it, where there is one.
Fails: at start-up only, on anything that could not mint a token that verifies. Messages name the
    key by its position in the set, never a member's content.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from msgspec import Meta, Struct

from macp_auth.adapters import jose
from macp_auth.adapters.hookspecs import SignerPlugin, hookimpl
from macp_auth.adapters.local import LocalKey, LocalSigner
from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.secret import Secret

KEY_JSON = "MACP_AUTH_SIGNING_KEY_JSON"
DEFAULT_KID = "key-1"
"""The kid that the reference service gives to a JWK without one."""
MAX_KID_CHARS = 256
"""Every token carries its kid; a longer one would leave no room for claims."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class EnvJWKSettings(Struct, frozen=True):
    """What may be set."""

    signing_key_json: Annotated[
        Secret[str],
        Meta(
            description="A private JWK, or a JWK Set with at least one private key.",
            extra={"expects": "a private JWK or a JWK Set (make one with: macp-auth keys generate)"},
        ),
    ]
    signing_kid: Annotated[
        str | None,
        Meta(
            description="Which key of a JWK Set signs; unset, the first private one.",
            extra={"expects": "a kid"},
        ),
    ] = None
    signing_alg: Annotated[
        Algorithm | None,
        Meta(
            description="If set, the signing key must be of this algorithm; unset, the key says it.",
            extra={"expects": "RS256 or ES256"},
        ),
    ] = None


class _Candidate(Struct, frozen=True):
    kid: str
    key: jose.PrivateKey | jose.PublicKey
    can_sign: bool


def prepare(settings: EnvJWKSettings) -> list[LocalKey]:
    """Read and prove every key, and settle which one signs."""
    candidates = [_candidate(jwk, where) for where, jwk in _jwks(settings.signing_key_json.reveal())]
    if len({candidate.kid for candidate in candidates}) < len(candidates):
        raise SignerMisconfigured(f"{KEY_JSON}: two keys have the same kid; every kid must name one key")
    signing = _choose(candidates, settings.signing_kid)
    if settings.signing_alg not in (None, jose.algorithm_of(signing.key)):
        raise SignerMisconfigured(
            f"MACP_AUTH_SIGNING_ALG does not fit the signing key in {KEY_JSON}, which is for "
            f"{jose.algorithm_of(signing.key)}; unset MACP_AUTH_SIGNING_ALG or give another key"
        )
    return [_local_key(candidate, signs=candidate is signing) for candidate in candidates]


def _jwks(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Return each JWK with the words that locate it in an error message."""
    try:
        document = json.loads(text, object_pairs_hook=_unique_members)
    except (ValueError, RecursionError):
        raise SignerMisconfigured(
            f"{KEY_JSON} is not valid JSON; it must be a private JWK or a JWK Set "
            "(check the quoting, and that nothing was cut off)"
        ) from None
    if not isinstance(document, dict):
        raise SignerMisconfigured(f"{KEY_JSON} must be a JSON object: a private JWK or a JWK Set")
    if "keys" not in document:
        return [(KEY_JSON, document)]
    keys = document["keys"]
    if not isinstance(keys, list) or not keys or not all(isinstance(jwk, dict) for jwk in keys):
        raise SignerMisconfigured(f"{KEY_JSON}: 'keys' must be a list of at least one JWK")
    return [(f"{KEY_JSON}: key {position} of {len(keys)}", jwk) for position, jwk in enumerate(keys, 1)]


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("duplicate member")
    return members


def _candidate(jwk: dict[str, Any], where: str) -> _Candidate:
    kid = jwk.get("kid", DEFAULT_KID)
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARS or _SURROGATE.search(kid):
        raise SignerMisconfigured(f"{where}: kid must be a string of 1 to {MAX_KID_CHARS} Unicode characters")
    try:
        key = jose.load(jwk)
    except jose.InvalidJWK as error:
        raise SignerMisconfigured(f"{where}: {error}") from None
    is_private = isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return _Candidate(kid, key, can_sign=is_private and jose.may_sign(jwk))


def _choose(candidates: list[_Candidate], kid: str | None) -> _Candidate:
    able = [candidate for candidate in candidates if candidate.can_sign]
    if not able:
        raise SignerMisconfigured(
            f"{KEY_JSON} has no private key that may sign (a public key has no 'd' member, "
            'and key_ops, where given, must hold "sign")'
        )
    if kid is None:
        return able[0]
    for candidate in able:
        if candidate.kid == kid:
            return candidate
    raise SignerMisconfigured(
        f"MACP_AUTH_SIGNING_KID names no private key of {KEY_JSON}, which has {len(able)}; "
        "unset it and the first one signs"
    )


def _local_key(candidate: _Candidate, *, signs: bool) -> LocalKey:
    key = candidate.key
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        return (
            LocalKey.signing(candidate.kid, key)
            if signs
            else LocalKey.published(candidate.kid, key.public_key())
        )
    return LocalKey.published(candidate.kid, key)


@hookimpl
def macp_auth_signer() -> SignerPlugin:
    """Register the signer."""
    return SignerPlugin(
        name="env-jwk",
        settings=EnvJWKSettings,
        settings_prefix="MACP_AUTH_",
        prepare=prepare,
        open=LocalSigner,
    )
