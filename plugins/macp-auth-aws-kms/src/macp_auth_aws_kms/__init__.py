"""``aws-kms``: asymmetric keys that never leave AWS KMS.

Settings:
    ``MACP_AUTH_AWS_KMS_KEYS``  one to sixteen key ids, key ARNs, alias names or alias ARNs, separated by
        commas. Each is one key version. An alias is resolved at every refresh.
    ``MACP_AUTH_AWS_KMS_ENDPOINT_URL``  another address of KMS, such as a VPC endpoint's.
    ``MACP_AUTH_AWS_KMS_TIMEOUT_SECONDS``  time limit of a signature, including a second attempt.
    ``MACP_AUTH_AWS_KMS_MAX_CALLS``  concurrent signatures in a worker; one more is rejected at once.
    ``AWS_REGION``  the region; if unset, boto3 finds it, as it does the credentials.
    ``AWS_*`` and the variables of proxies, for boto3.
Keys: ``SIGN_VERIFY`` of RSA_2048, RSA_3072 or RSA_4096 (RS256), or ECC_NIST_P256 (ES256). The kid is the
    RFC 7638 thumbprint, ``created_at`` the key's creation in KMS. An enabled key is published and can sign;
    one that is disabled or pending deletion is not published.
Privileges: kms:Sign, kms:GetPublicKey and kms:DescribeKey on these keys; the README has the policy.
Fails: at start-up only on invalid settings: KMS is not called. Later, if a name does not exist or is a key
    of another kind, the refresh fails, and the last good keys stay in use.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from macp_auth import SignerPlugin, hookimpl
from macp_auth_aws_kms.signer import AWSKMSSigner

_NAME = r"\s*[A-Za-z0-9:/_-]+\s*"
# Over plain HTTP, an attacker on the network path could choose the published keys.
_URL = Annotated[
    str, Meta(pattern=r"^(https://[^/?#@\s]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?)/?$")
]

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_BOTO3_READS = (
    "AWS_*",
    "BOTO_CONFIG",
    "REQUESTS_CA_BUNDLE",
    *_PROXIES,
    *(name.lower() for name in _PROXIES),
)


class AWSKMSSettings(Struct, frozen=True, kw_only=True):
    """The settings."""

    keys: Annotated[
        str,
        Meta(
            pattern=rf"^{_NAME}(,{_NAME}){{0,15}}$",
            description="The signing keys, including predecessors.",
            extra={"expects": "1 to 16 key ids, key ARNs or aliases, separated by commas"},
        ),
    ]
    region: Annotated[
        str | None,
        Meta(
            description="The AWS region. Unset: as boto3 finds it.",
            extra={"expects": "the name of an AWS region", "variable": "AWS_REGION"},
        ),
    ] = None
    endpoint_url: Annotated[
        _URL | None,
        Meta(
            description="The address of KMS. Unset: as boto3 finds it.",
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
    max_calls: Annotated[
        int,
        Meta(
            ge=1,
            le=1024,
            description="Maximum number of concurrent signatures in a worker; each has a thread.",
            extra={"expects": "a whole number from 1 to 1024"},
        ),
    ] = 64


def prepare(settings: AWSKMSSettings) -> AWSKMSSettings:
    """Return the settings: they contain no secret, and each worker calls KMS itself."""
    return settings


def open_signer(settings: AWSKMSSettings) -> AWSKMSSigner:
    """Return a signer. It makes its AWS client, which processes must not share, on its first call."""
    return AWSKMSSigner(
        [name.strip() for name in settings.keys.split(",")],
        region=settings.region,
        endpoint_url=settings.endpoint_url,
        timeout=settings.timeout_seconds,
        max_calls=settings.max_calls,
    )


@hookimpl
def macp_auth_signer() -> SignerPlugin:
    """Register the signer."""
    return SignerPlugin(
        name="aws-kms",
        api_version=1,
        settings=AWSKMSSettings,
        settings_prefix="MACP_AUTH_AWS_KMS_",
        prepare=prepare,
        open=open_signer,
        environment=_BOTO3_READS,
    )
