"""One request for a token: ``POST /tokens`` of macp-auth (docs/api.md in its repository)."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from macp_auth_client.errors import CredentialError, MintError, MintRefused, MintUnavailable
from macp_auth_client.schedule import Token

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # b64token of RFC 6750, section 2.1
_JWT = re.compile(r"([A-Za-z0-9_-]+\.){2}[A-Za-z0-9_-]+")  # JWS compact form, RFC 7515, section 7.1
_MAX_BEARER_BYTES = 16 * 1024  # what macp-auth accepts
_MAX_TEXT = 300
_RETRYABLE = {408, 429}


@dataclass(frozen=True, kw_only=True, repr=False)
class Minter:
    """Mints one kind of token. Files are read at each request, so renewed ones are used.

    Attributes:
        url: as :func:`tokens_url` makes it.
        body: as :func:`request_body` makes it.
        timeout: seconds for each step of a request.

    The others are those of :class:`macp_auth_client.TokenSource`.
    """

    url: str
    body: bytes
    bearer_file: str | Path | None
    cert: str | Path | None
    key: str | Path | None
    cacert: str | Path | None
    timeout: float

    def mint(self, clock: Callable[[], float]) -> Token:
        """Mint a token, or raise MintError. ``clock`` gives monotonic seconds."""
        request, options = self._prepare()
        began = clock()
        try:
            with httpx.Client(**options) as client:
                return _token(client.send(request), began)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    async def mint_async(self, clock: Callable[[], float]) -> Token:
        """Do as :meth:`mint` does. Files are read in a thread."""
        request, options = await asyncio.to_thread(self._prepare)
        began = clock()
        try:
            async with httpx.AsyncClient(**options) as client:
                return _token(await client.send(request), began)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _prepare(self) -> tuple[httpx.Request, dict[str, Any]]:
        headers = {"content-type": "application/json", "user-agent": "macp-auth-client"}
        if self.bearer_file is not None:
            headers["authorization"] = f"Bearer {_read_bearer(Path(self.bearer_file))}"
        request = httpx.Request("POST", self.url, headers=headers, content=self.body)
        # trust_env: a proxy of the environment would see a credential that goes to loopback without TLS.
        return request, {"verify": self._tls(), "timeout": self.timeout, "trust_env": False}

    def _tls(self) -> ssl.SSLContext:
        try:
            context = (
                ssl.create_default_context(cafile=self.cacert) if self.cacert else httpx.create_ssl_context()
            )
            if self.cert:
                context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            files = ", ".join(str(path) for path in (self.cacert, self.cert, self.key) if path)
            raise CredentialError(f"cannot use {files}: {_reason(error)}") from None
        return context

    def _unreachable(self, error: httpx.HTTPError) -> MintUnavailable:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        return MintUnavailable(f"no answer from {self.url}: {text[:_MAX_TEXT]}")


def request_body(sender: str, scopes: Mapping[str, Any], **optional: object) -> bytes:
    """Return the request, with each of ``optional`` that is not None."""
    given = {name: value for name, value in optional.items() if value is not None}
    return json.dumps({"sender": sender, "scopes": scopes, **given}, allow_nan=False).encode()


def tokens_url(url: str, *, bearer: bool, cert: bool, allow_plain_http: bool) -> str:
    """Return the address of ``POST /tokens``, or raise ValueError, also if a credential may not go there."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"url is malformed: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError("url must begin with https:// or http:// and name a host")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError("url must have no user, password, query or fragment")
    if cert and parsed.scheme == "http":
        raise ValueError("a client certificate needs an https url")
    if bearer and parsed.scheme == "http" and not (allow_plain_http or _is_loopback(parsed.host)):
        raise ValueError(
            f"refusing to send a credential to {parsed.host} over plain http: use https, or set "
            "allow_plain_http=True if a mesh encrypts the connection"
        )
    return f"{str(parsed).rstrip('/')}/tokens"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_bearer(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BEARER_BYTES + 1)
    except OSError as error:
        raise CredentialError(f"cannot read {path}: {_reason(error)}") from None
    text = content.decode("ascii", errors="replace").strip()
    if len(content) > _MAX_BEARER_BYTES or not _BEARER.fullmatch(text):
        raise CredentialError(f"{path} does not have one bearer credential of at most 16 KiB")
    return text


def _no_password() -> str:
    # Without this, OpenSSL asks on the terminal.
    raise ValueError("the key is encrypted; decrypt it")


def _token(response: httpx.Response, began: float) -> Token:
    if response.status_code != httpx.codes.OK:
        raise _failure(response)
    match _json(response):
        case {"token": str(jwt), "expires_in_seconds": int(lifetime)} if lifetime > 0 and _JWT.fullmatch(jwt):
            return Token(jwt, lifetime, began)
    raise MintUnavailable(f"{response.url} does not answer as macp-auth does", response.status_code)


def _failure(response: httpx.Response) -> MintError:
    status = response.status_code
    match _json(response):
        case {"error": str(text)}:
            # Of macp-auth itself, which puts no credential into it; a proxy's page is left out.
            text = "".join(letter for letter in text[:_MAX_TEXT] if letter.isprintable())
        case _:
            text = response.reason_phrase
    request_id = response.headers.get("x-request-id", "")
    found = f" (request {request_id})" if re.fullmatch(r"[\w.-]{1,128}", request_id, re.ASCII) else ""
    retryable = status in _RETRYABLE or status >= httpx.codes.INTERNAL_SERVER_ERROR
    kind = MintUnavailable if retryable else MintRefused
    return kind(f"{response.url} answered {status}: {text}{found}", status, _retry_after(response))


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of Retry-After. A date in it is compared with the answer's own Date."""
    value = response.headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        until = parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    try:
        now = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        now = time.time()
    return max(0.0, until - now)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
