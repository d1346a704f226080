"""Tokens of macp-auth for programs that act for MACP agents.

:class:`TokenSource` and :class:`AsyncTokenSource` mint a token and keep a live one at hand.
"""

from macp_auth_client.bootstrap import write_bootstrap
from macp_auth_client.errors import (
    CredentialError,
    MintError,
    MintRefused,
    MintUnavailable,
    UntrustedService,
)
from macp_auth_client.http_auth import AsyncBearerAuth, BearerAuth
from macp_auth_client.sources import AsyncTokenSource, TokenSource

__all__ = [
    "AsyncBearerAuth",
    "AsyncTokenSource",
    "BearerAuth",
    "CredentialError",
    "MintError",
    "MintRefused",
    "MintUnavailable",
    "TokenSource",
    "UntrustedService",
    "write_bootstrap",
]
