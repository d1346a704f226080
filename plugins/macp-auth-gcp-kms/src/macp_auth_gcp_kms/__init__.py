"""``gcp-kms``: asymmetric keys that never leave Google Cloud KMS.

Settings:
    ``MACP_AUTH_GCP_KMS_KEY``  the resource name of one CryptoKey. Each of its versions is a key version.
    ``MACP_AUTH_GCP_KMS_ENDPOINT``  another address of Cloud KMS, such as one of Private Service Connect.
    ``MACP_AUTH_GCP_KMS_TIMEOUT_SECONDS``  time limit of a signature, including a second attempt.
    ``GOOGLE_*`` and others for Application Default Credentials, gRPC and proxies.
Keys: versions of EC_SIGN_P256_SHA256 (ES256) or RSA_SIGN_PKCS1_2048_SHA256, _3072_ or _4096_ (RS256). The kid
    is the RFC 7638 thumbprint, ``created_at`` the time at which the key material was generated or imported.
    An enabled version is published and can sign; any other is not published.
Privileges: cloudkms.cryptoKeyVersions.list, .viewPublicKey and .useToSign on this key; the README has a
    role of them.
Fails: at start-up only on invalid settings: Cloud KMS is not called. Later, if the key does not exist or an
    enabled version is of another algorithm, the refresh fails, and the last good keys stay in use.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from macp_auth import SignerPlugin, hookimpl
from macp_auth_gcp_kms.signer import MAX_CALLS, GCPKMSSigner

_ID = r"[A-Za-z0-9_-]{1,63}"
_KEY = rf"^projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/keyRings/{_ID}/cryptoKeys/{_ID}$"
# Over plain HTTP, an attacker on the network path could choose the published keys.
_URL = r"^(https://[^/?#@\s]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?)/?$"

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_GOOGLE_READS = (
    "GOOGLE_*",
    "GCE_METADATA_*",
    "NO_GCE_CHECK",
    "CLOUDSDK_CONFIG",
    "GRPC_*",
    "grpc_proxy",
    "no_grpc_proxy",
    *_PROXIES,
    *(name.lower() for name in _PROXIES),
)


class GCPKMSSettings(Struct, frozen=True, kw_only=True):
    """The settings."""

    key: Annotated[
        str,
        Meta(
            pattern=_KEY,
            description="The signing key, of which each version is one.",
            extra={"expects": "projects/…/locations/…/keyRings/…/cryptoKeys/…"},
        ),
    ]
    endpoint: Annotated[
        Annotated[str, Meta(pattern=_URL)] | None,
        Meta(
            description="The address of Cloud KMS. Unset: Google's own.",
            extra={"expects": "an https:// URL without a path (http:// on loopback only)"},
        ),
    ] = None
    timeout_seconds: Annotated[
        float,
        Meta(
            ge=0.5,
            le=30,
            description="Time limit of a signature, including a second attempt.",
            extra={"expects": "a number of seconds from 0.5 to 30"},
        ),
    ] = 1.8


def prepare(settings: GCPKMSSettings) -> GCPKMSSettings:
    """Return the settings: they contain no secret, and each worker calls Cloud KMS itself."""
    return settings


def open_signer(settings: GCPKMSSettings) -> GCPKMSSigner:
    """Return a signer. It connects, which processes must not share, on its first call."""
    return GCPKMSSigner(settings.key, endpoint=settings.endpoint, timeout=settings.timeout_seconds)


@hookimpl
def macp_auth_signer() -> SignerPlugin:
    """Register the signer."""
    return SignerPlugin(
        name="gcp-kms",
        api_version=1,
        settings=GCPKMSSettings,
        settings_prefix="MACP_AUTH_GCP_KMS_",
        prepare=prepare,
        open=open_signer,
        environment=_GOOGLE_READS,
        concurrent_signs=MAX_CALLS,
    )
