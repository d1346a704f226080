"""The public API for signer plugins; :mod:`macp_auth` loads it on demand."""

from macp_auth.adapters.hookspecs import API_VERSION, SignerPlugin, hookimpl
from macp_auth.adapters.input_file import read_private_file
from macp_auth.adapters.jose import public_jwk, raw_ecdsa_signature
from macp_auth.adapters.thread_pool import BoundedThreadPool
from macp_auth.domain.diagnosis import Finding, Status
from macp_auth.domain.errors import (
    MACPAuthError,
    SignerError,
    SignerMisconfigured,
    SignerRefused,
    SignerUnavailable,
    UnknownKid,
)
from macp_auth.domain.keys import Algorithm, ECPublicJWK, KeyVersion, PublicJWK, RSAPublicJWK, thumbprint
from macp_auth.domain.policy import RotationPolicy
from macp_auth.domain.secret import Secret
from macp_auth.domain.signer import Signer

__all__ = [
    "API_VERSION",
    "Algorithm",
    "BoundedThreadPool",
    "ECPublicJWK",
    "Finding",
    "KeyVersion",
    "MACPAuthError",
    "PublicJWK",
    "RSAPublicJWK",
    "RotationPolicy",
    "Secret",
    "Signer",
    "SignerError",
    "SignerMisconfigured",
    "SignerPlugin",
    "SignerRefused",
    "SignerUnavailable",
    "Status",
    "UnknownKid",
    "hookimpl",
    "public_jwk",
    "raw_ecdsa_signature",
    "read_private_file",
    "thumbprint",
]
