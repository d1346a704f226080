"""Fetches a JWK Set as a verifier does; errors name the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from macp_auth.entrypoints.cli.http_client import Unreachable, client_tls, exchange
from macp_auth.entrypoints.cli.runtime_keys import PublishedKey, read_jwks

_FETCH_SECONDS = 5
_PATH = "the path is /.well-known/jwks.json"


def fetch_jwks(url: str, authorities: Path | None = None) -> Sequence[PublishedKey]:
    """Return the published keys, as the MACP runtime reads them.

    ``authorities`` is a PEM file of CA certificates; None for the system's.

    Raises:
        Unreachable: there is no usable response.
    """
    answer = exchange(url, client_tls(authorities), _FETCH_SECONDS)
    if answer.status != HTTPStatus.OK:
        raise Unreachable(f"{url}: the response status is {answer.status}; {_PATH}")
    try:
        return read_jwks(answer.body)
    except ValueError:
        raise Unreachable(f"{url}: the response is not a JWK Set with a key; {_PATH}") from None
