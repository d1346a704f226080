"""macp-auth: short-lived JWTs for MACP agents, and the keys to verify them.

What is importable from here is the public API for signer plugins.
"""

from macp_auth.adapters.hookspecs import API_VERSION, SignerPlugin, hookimpl
from macp_auth.adapters.input_file import read_private_file
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

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "Algorithm",
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
    "__version__",
    "hookimpl",
    "read_private_file",
    "thumbprint",
]
