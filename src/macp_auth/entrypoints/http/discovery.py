"""``GET /.well-known/openid-configuration``: where the keys of an issuer are (OpenID Connect Discovery 1.0).

It has the members that Kubernetes serves for service-account tokens. There are no endpoints for logins:
nobody logs in here.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from macp_auth.domain.keys import Algorithm
from macp_auth.entrypoints.http import jwks
from macp_auth.entrypoints.http.openapi import answer

PATH = "/.well-known/openid-configuration"
_URL_WITHOUT_QUERY = re.compile(r"[\w.~:/\[\]@!$&'()*+,;=%-]+", re.ASCII)  # RFC 3986, section 2


class ProviderMetadata(Struct, frozen=True, kw_only=True):
    """What verifiers read of the issuer (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    jwks_uri: str
    response_types_supported: tuple[str, ...] = ("id_token",)
    subject_types_supported: tuple[str, ...] = ("public",)
    id_token_signing_alg_values_supported: tuple[str, ...] = tuple(each.value for each in Algorithm)
    """All that this software signs with: libraries read this once, and keys rotate."""


def provider_metadata(issuer: str) -> ProviderMetadata | None:
    """Return the metadata of ``issuer``; None if it can't have any.

    Only an https URL of host, port and path can (sections 1.2 and 3).
    """
    if not _URL_WITHOUT_QUERY.fullmatch(issuer):
        return None
    try:
        url = urlsplit(issuer)
        _ = url.port  # checked here
    except ValueError:
        return None
    if url.scheme != "https" or not url.hostname or "@" in url.netloc:
        return None
    return ProviderMetadata(issuer=issuer, jwks_uri=issuer.removesuffix("/") + jwks.PATH)


def discovery_route(metadata: ProviderMetadata, max_age: int) -> HTTPRouteHandler:
    """Return the route that answers with ``metadata``, which may be cached for ``max_age`` seconds."""
    headers = {"cache-control": f"public, max-age={max_age}"}

    @get(
        PATH,
        sync_to_thread=False,
        operation_id="discovery",
        summary="Where the keys are (OpenID Connect Discovery 1.0)",
        responses={200: answer(ProviderMetadata, "The metadata of the issuer")},
    )
    def discovery() -> Response[ProviderMetadata]:
        return Response(metadata, headers=headers)

    return discovery
