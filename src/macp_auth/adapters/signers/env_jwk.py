"""``env-jwk``: private keys from one environment variable.

Settings:
    ``MACP_AUTH_SIGNING_KEY_JSON``  a private JWK, or a JWK Set with at least one. All public
        keys are published; a public-only key in a set is published for verification.
    ``MACP_AUTH_SIGNING_KID``  which key of a set signs; unset, the first private one.
    ``MACP_AUTH_SIGNING_ALG``  if set, the signing key must be of this algorithm.
Privileges: none. Anyone who can read the environment of the process can read the key: prefer a
    backend that keeps it.
Fails: at start-up only, on a key that could not sign a verifiable token. Messages name the key by its
    position in the set, and never show its content.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from macp_auth.adapters import jose, setting
from macp_auth.adapters.hookspecs import SignerPlugin, hookimpl
from macp_auth.adapters.signers.jwk_document import JWK, read_jwks
from macp_auth.adapters.signers.local import LocalKey, LocalSigner
from macp_auth.domain.errors import SignerMisconfigured
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.secret import Secret

KEY_JSON = "MACP_AUTH_SIGNING_KEY_JSON"


class EnvJWKSettings(Struct, frozen=True):
    """The settings."""

    signing_key_json: Annotated[
        Secret[str],
        setting.value(
            "The private JWK, or a JWK Set with at least one private key.",
            "a private JWK or a JWK Set (make one with: macp-auth keys generate)",
            multiline=True,
        ),
    ]
    signing_kid: Annotated[
        str | None,
        setting.value("Which key of a set signs. Unset: the first private one.", "a kid"),
    ] = None
    signing_alg: Annotated[
        Algorithm | None,
        setting.value(
            "A check: the signing key must be for this algorithm. Unset: the key says it.", "RS256 or ES256"
        ),
    ] = None


def prepare(settings: EnvJWKSettings) -> list[LocalKey]:
    """Read and check every key, and choose the one that signs."""
    keys = read_jwks(settings.signing_key_json.reveal(), KEY_JSON)
    signing = _choose([key for key in keys if key.can_sign], settings.signing_kid)
    if settings.signing_alg not in (None, jose.algorithm_of(signing.key)):
        raise SignerMisconfigured(
            f"MACP_AUTH_SIGNING_ALG does not fit the signing key in {KEY_JSON}, which is for "
            f"{jose.algorithm_of(signing.key)}; unset MACP_AUTH_SIGNING_ALG or give another key"
        )
    return [
        LocalKey.signing(key.kid, key.private)
        if key is signing and key.private is not None
        else LocalKey.published(key.kid, key.public)
        for key in keys
    ]


def _choose(able: list[JWK], kid: str | None) -> JWK:
    if kid is None:
        return able[0]
    for key in able:
        if key.kid == kid:
            return key
    raise SignerMisconfigured(
        f"MACP_AUTH_SIGNING_KID names no private key of {KEY_JSON}, which has {len(able)}; "
        "unset it and the first one signs"
    )


@hookimpl
def macp_auth_signer() -> SignerPlugin:
    """Register the signer."""
    return SignerPlugin(
        name="env-jwk",
        api_version=1,
        settings=EnvJWKSettings,
        settings_prefix="MACP_AUTH_",
        prepare=prepare,
        open=LocalSigner,
    )
