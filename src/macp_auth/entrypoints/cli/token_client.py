"""Requests tokens from the service; errors name the remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from macp_auth.adapters.input_file import Custody
from macp_auth.domain.encoding import from_base64url
from macp_auth.domain.redaction import shown
from macp_auth.domain.secret import Secret
from macp_auth.entrypoints.cli.http_client import (
    Answer,
    Unreachable,
    client_tls,
    exchange,
    read_file,
    read_private,
    split,
)
from macp_auth.entrypoints.server.listening import is_loopback

_SECONDS = 10  # the signature takes at most 2 s of them
_BEARER = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
_SECRET_PREFIX = b"macp_"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")  # docs/api.md, "Request ids and traces"


class NoToken(Exception):
    """The service answers without a token; the text names the remedy."""


class Minted(Struct, frozen=True):
    """The answer of the service."""

    token: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}\Z")]
    sender: str
    expires_in_seconds: Annotated[int, Meta(gt=0)]

    @property
    def audience(self) -> str | None:
        """The claim ``aud`` of the token; None if it has no such text."""
        _, payload, _ = self.token.split(".")
        try:
            return msgspec.json.decode(from_base64url(payload), type=_Claims).aud
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None


class _Claims(Struct):
    aud: str


class _Refusal(Struct):
    error: str


class TokenClient:
    """Requests tokens of one service.

    Args:
        url: its base URL.
        bearer_file: file of a bearer secret or a JWT to send.
        certificate: PEM file of a client certificate to present.
        key: PEM file of its private key; None if the certificate's file contains it.
        authorities: PEM file of the CA certificates that verify the service; None for the system's.
        allow_plain_http: send a bearer credential over plain http to an address that is not loopback.

    Raises:
        Unreachable: a file is unusable, or the credential must not be sent to this URL.
    """

    def __init__(  # noqa: PLR0913 - one parameter an option
        self,
        url: str,
        *,
        bearer_file: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        authorities: Path | None = None,
        allow_plain_http: bool = False,
    ) -> None:
        parts = split(url)
        if "?" in url or "#" in url:
            raise Unreachable(f"{url}: the URL must contain no query and no fragment; /tokens is added to it")
        self._url = f"{url.rstrip('/')}/tokens"
        if parts.scheme == "http" and certificate is not None:
            raise Unreachable(f"{url}: a client certificate needs https://")
        is_private = allow_plain_http or parts.scheme == "https" or is_loopback(parts.hostname or "")
        if bearer_file is not None and not is_private:
            raise Unreachable(
                f"{url}: a bearer credential is sent over https, or to loopback, only; "
                "use https://, or forward a port of localhost to it (ssh -L, kubectl port-forward), "
                "or pass --allow-plain-http if a mesh encrypts the connection"
            )
        self._bearer = None if bearer_file is None else _read_bearer(bearer_file)
        self._has_credential = bearer_file is not None or certificate is not None
        self._tls = client_tls(authorities, certificate, key)

    def mint(self, request: Mapping[str, Any]) -> Minted:
        """Return the answer to ``request``, whose members are those of ``POST /tokens``.

        Raises:
            Unreachable: there is no answer.
            NoToken: the answer contains none.
        """
        headers = {"content-type": "application/json"}
        if self._bearer is not None:
            headers["authorization"] = f"Bearer {self._bearer.reveal()}"
        answer = exchange(self._url, self._tls, _SECONDS, body=json.dumps(request).encode(), headers=headers)
        if answer.status != HTTPStatus.OK:
            raise NoToken(self._with_id(answer, self._refusal(answer)))
        try:
            minted = msgspec.json.decode(answer.body, type=Minted)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise NoToken(f"{self._url}: the response is not a token; is it macp-auth?") from None
        if minted.sender != request["sender"]:
            raise NoToken(f"{self._url}: the response is for another sender; is a cache before it?")
        return minted

    def _refusal(self, answer: Answer) -> str:
        if HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST:
            target = shown(answer.headers.get("location", "nowhere"))
            return f"{self._url} redirects to {target}, and redirects are not followed; correct --url"
        try:
            text = shown(msgspec.json.decode(answer.body, type=_Refusal).error)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return (
                f"{self._url}: status {answer.status}, without an error of macp-auth; is a proxy before it?"
            )
        seconds = answer.headers.get("retry-after", "")
        if seconds.isdecimal():
            return f"{answer.status} {text.removesuffix('; try again')}; try again in {seconds} s"
        remedy = self._remedy(answer.status, text)
        return f"{answer.status} {text}" + (f"; {remedy}" if remedy else "")

    def _remedy(self, status: int, text: str) -> str | None:
        if status == HTTPStatus.UNAUTHORIZED and self._has_credential:
            return "the audit log has the reason"
        if status == HTTPStatus.UNAUTHORIZED:
            return "pass one with --bearer-file, or with --cert and --key"
        if status == HTTPStatus.FORBIDDEN and "certificate" in text:
            return "pass one with --cert and --key"
        if status == HTTPStatus.FORBIDDEN and "grant" in text:
            return "see its callers file (macp-auth callers explain)"
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            return f"{self._url} is not that of macp-auth; correct --url, to which /tokens is added"
        return None

    def _with_id(self, answer: Answer, text: str) -> str:
        request_id = answer.headers.get("x-request-id", "")
        return f"{text} (request {request_id})" if _REQUEST_ID.fullmatch(request_id) else text


def _read_bearer(path: Path) -> Secret[str]:
    # Kubernetes lets others read the token of a service account, which is valid for minutes.
    data = read_file(path, Custody.JWT).data.strip()
    if data.startswith(_SECRET_PREFIX):
        data = read_private(path).strip()
    if not _BEARER.fullmatch(data):
        raise Unreachable(f"{path} must hold one bearer secret or JWT, and nothing else")
    return Secret(data.decode())
