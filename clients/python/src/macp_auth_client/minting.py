"""One request for a token: ``POST /tokens`` of macp-auth (docs/api.md in its repository)."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from macp_auth_client.errors import (
    CredentialError,
    MintError,
    MintRefused,
    MintUnavailable,
    UntrustedService,
)
from macp_auth_client.schedule import Token

_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # b64token of RFC 6750, section 2.1
_JWT = re.compile(r"([A-Za-z0-9_-]+\.){2}[A-Za-z0-9_-]+")  # JWS compact form, RFC 7515, section 7.1
_MAX_BEARER_BYTES = 16 * 1024  # what macp-auth accepts
_MAX_ANSWER_BYTES = 2**20
_MAX_TEXT = 300
_MAX_PORT = 65535
_RETRYABLE = {408, 429}


@dataclass(frozen=True, kw_only=True, repr=False)
class Minter:
    """Mints one kind of token. Files are read at each request, so renewed ones are used.

    Attributes:
        url: as :func:`tokens_url` makes it.
        sender: who the token is for.
        body: as :func:`request_body` makes it.
        timeout: seconds for each step of a request.

    The others are those of :class:`macp_auth_client.TokenSource`.
    """

    url: str
    sender: str
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
        content = bytearray()
        try:
            with httpx.Client(**options) as client, closing(client.send(request, stream=True)) as response:
                for part in response.iter_raw():
                    self._add(part, content)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        return self._token(response, bytes(content), began)

    async def mint_async(self, clock: Callable[[], float]) -> Token:
        """Do as :meth:`mint` does. Files are read in a thread."""
        request, options = await asyncio.to_thread(self._prepare)
        began = clock()
        content = bytearray()
        try:
            async with (
                httpx.AsyncClient(**options) as client,
                aclosing(await client.send(request, stream=True)) as response,
            ):
                async for part in response.aiter_raw():
                    self._add(part, content)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        return self._token(response, bytes(content), began)

    def _prepare(self) -> tuple[httpx.Request, dict[str, Any]]:
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",  # a few compressed bytes could fill the memory
            "user-agent": "macp-auth-client",
        }
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
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13 sets it; many private CAs fail it
            if self.cert:
                context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            files = ", ".join(str(path) for path in (self.cacert, self.cert, self.key) if path)
            raise CredentialError(f"cannot use {files}: {_reason(error)}") from None
        return context

    def _unreachable(self, error: httpx.HTTPError) -> MintError:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                why = cause.verify_message
                return UntrustedService(f"the certificate of {self.url} is not trusted: {why}")
            cause = cause.__cause__ or cause.__context__
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        return MintUnavailable(f"no answer from {self.url}: {text[:_MAX_TEXT]}")

    def _add(self, part: bytes, content: bytearray) -> None:
        content += part
        if len(content) > _MAX_ANSWER_BYTES:
            raise MintUnavailable(f"{self.url} answers with more than {_MAX_ANSWER_BYTES} bytes")

    def _token(self, response: httpx.Response, content: bytes, began: float) -> Token:
        if response.status_code != httpx.codes.OK:
            raise _failure(response, content)
        match _json(content):
            case {"token": str(jwt), "sender": str(sender), "expires_in_seconds": int(lifetime)} if (
                lifetime > 0 and _JWT.fullmatch(jwt)
            ):
                if sender == self.sender:
                    return Token(jwt, lifetime, began)
                raise MintUnavailable(f"{self.url} answers for another sender", response.status_code)
        raise MintUnavailable(f"{self.url} does not answer as macp-auth does", response.status_code)


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
    if parsed.userinfo or "?" in url or "#" in url:
        raise ValueError("url must have no user, password, query or fragment")
    if not _is_address(parsed):
        raise ValueError("url has a malformed host or port")
    if cert and parsed.scheme == "http":
        raise ValueError("a client certificate needs an https url")
    if bearer and parsed.scheme == "http" and not (allow_plain_http or _is_loopback(parsed.host)):
        raise ValueError(
            f"refusing to send a credential to {parsed.host} over plain http: use https, or set "
            "allow_plain_http=True if a mesh encrypts the connection"
        )
    return f"{str(parsed).rstrip('/')}/tokens"


def _is_address(url: httpx.URL) -> bool:
    try:
        url.raw_host.decode().encode("idna")  # as socket does, later
    except UnicodeError:
        return False
    return url.port is None or 0 < url.port <= _MAX_PORT


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_bearer(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BEARER_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise CredentialError(f"cannot read {path}: {_reason(error)}") from None
    text = content.decode("ascii", errors="replace").strip()
    if len(content) > _MAX_BEARER_BYTES or not _BEARER.fullmatch(text):
        raise CredentialError(f"{path} does not have one bearer credential of at most 16 KiB")
    return text


def _no_password() -> str:
    # Without this, OpenSSL asks on the terminal.
    raise ValueError("the key is encrypted; decrypt it")


def _failure(response: httpx.Response, content: bytes) -> MintError:
    status = response.status_code
    match _json(content):
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


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
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
