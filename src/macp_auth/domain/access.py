"""What one reading of the callers file says: who calls, and who may mint what."""

from __future__ import annotations

from msgspec import Struct

from macp_auth.domain.callers import AuthenticatorChain
from macp_auth.domain.grants import Grants


class AccessRules(Struct, frozen=True):
    """The rules in use.

    Those in use when a whole request is there authenticate its caller and permit its token.
    """

    callers: AuthenticatorChain
    grants: Grants
    certificate_header: str | None = None
    """The header in which a proxy on this host names its client's certificate, in lower case."""
