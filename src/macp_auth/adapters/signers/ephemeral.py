"""``ephemeral``: a key that exists only while the service runs. For development.

Settings: ``MACP_AUTH_SIGNING_ALG``, RS256 (default) or ES256.
Privileges: none.
Fails: never. Every restart creates a new key and invalidates earlier tokens and cached JWKS. The kid is
always
``dev-key-1``, as in the reference service, so a verifier with a cached JWKS does not notice the change.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from macp_auth.adapters import jose, setting
from macp_auth.adapters.hookspecs import SignerPlugin, hookimpl
from macp_auth.adapters.signers.local import LocalKey, LocalSigner
from macp_auth.domain.keys import Algorithm

KID = "dev-key-1"
"""The kid of the reference service's own ephemeral key."""


class EphemeralSettings(Struct, frozen=True):
    """The settings."""

    signing_alg: Annotated[
        Algorithm,
        setting.value("The algorithm of the key to make: RSA of 2048 bits, or P-256.", "RS256 or ES256"),
    ] = Algorithm.RS256


def prepare(settings: EphemeralSettings) -> list[LocalKey]:
    """Create the key, once for all workers."""
    return [LocalKey.signing(KID, jose.generate(settings.signing_alg))]


@hookimpl
def macp_auth_signer() -> SignerPlugin:
    """Register the signer."""
    return SignerPlugin(
        name="ephemeral",
        api_version=1,
        durable=False,
        settings=EphemeralSettings,
        settings_prefix="MACP_AUTH_",
        prepare=prepare,
        open=LocalSigner,
    )
