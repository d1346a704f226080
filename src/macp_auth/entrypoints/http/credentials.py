"""The credentials of a request: what its headers and its connection show."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from litestar.types import Scope

from macp_auth.application.access import Access
from macp_auth.domain.callers import Caller, Credentials
from macp_auth.domain.errors import BadCredential, CredentialFault

MAX_BEARER_CHARS = 16 * 1024
"""More than any token of an issuer: Kubernetes' have 1 KB, and a token with many groups 4 KB."""
_BEARER = "bearer "


Authenticate = Callable[[Scope], Caller | None]
"""Returns the caller of a request; None if it needs none."""


def anonymous(_scope: Scope) -> None:
    """Return None: a request needs no caller."""


def authenticate(access: Access, scope: Scope) -> Caller | None:
    """Return the caller of a request; None if it needs none.

    Raises:
        Unauthenticated: it needs one, and shows none.
        CallersUnavailable: there are no rules yet.
    """
    return access.authenticate(_credentials(scope, access.certificate_header))


def _credentials(scope: Scope, certificate_header: str | None) -> Credentials:
    bearer = dict(scope["headers"]).get(b"authorization")  # the protocol refuses a repeated one
    tls: Any = (scope.get("extensions") or {}).get("tls", {})  # our protocol sets it where there is TLS
    client = scope["client"]
    return Credentials(
        certificate=tls.get("client_certificate"),
        bearer=None if bearer is None else _token(bearer.decode("latin-1")),
        forwarded=None if certificate_header is None else _field(scope, certificate_header.encode()),
        peer_is_loopback=client is not None and _is_loopback(client[0]),
    )


def _field(scope: Scope, wanted: bytes) -> str | None:
    """Return a header's value, of several lines in one (RFC 9110, section 5.3)."""
    lines = [value for name, value in scope["headers"] if name == wanted]
    return b",".join(lines).decode("latin-1") if lines else None


def _token(authorization: str) -> str | None:
    """Return the token of the scheme Bearer (RFC 6750, section 2.1); None for another scheme."""
    if authorization[: len(_BEARER)].lower() != _BEARER:
        return None
    if len(authorization) > MAX_BEARER_CHARS:
        raise BadCredential(CredentialFault.MALFORMED)
    return authorization[len(_BEARER) :].strip(" ")


@lru_cache(1024)
def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # no IP address
        return False
