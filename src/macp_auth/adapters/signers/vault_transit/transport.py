"""One request to Vault: hvac on the event loop, over aiohttp, and the meaning of its errors.

hvac's methods build a request, and return the result of their adapter; that of this adapter is awaited.
hvac's own transport is a requests session: it blocks, takes three times the CPU per call, and may read
proxies and passwords from the environment. In a thread, it would cost two more switches.

Errors of hvac and aiohttp become errors of the domain. Vault's message is in the error's text, which is for
the log.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from hvac import exceptions as vault
from hvac import utils
from hvac.adapters import Adapter

from macp_auth.domain.errors import SignerError, SignerMisconfigured, SignerRefused, SignerUnavailable

MAX_ANSWER_BYTES = 4 * 2**20
"""A key with a thousand versions has less than 1 MiB."""
_MULTIPLE_CHOICES, _BAD_REQUEST, _TOO_MANY_REQUESTS, _SERVER_ERROR = 300, 400, 429, 500
_LONGEST_DETAIL = 300  # characters of Vault's message in a log line
_PLAIN_TEXT = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}
"""OpenSSL's reasons for an answer without TLS, depending on its version."""
_CLIENT_CERTIFICATE_ALERT = re.compile(r"ALERT_.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)")
"""OpenSSL's reasons for a server's alerts about the client's certificate (RFC 8446, section 6.2)."""
_NAME_MISMATCH = {62, 64}  # x509_vfy.h: X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


class TokenNotAccepted(SignerRefused):
    """Vault's status is 403: the token is no longer known, or no policy allows the request.

    Vault does not distinguish the two.
    """

    default_reason = "permission-denied"


async def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return the answer of a client's method.

    Raises:
        SignerUnavailable: no answer, or a temporary error.
        SignerRefused: Vault refuses the request.
        SignerMisconfigured: the settings do not make a valid request.
    """
    try:
        return await function(*arguments, **named)
    except SignerError:
        raise
    except Exception as error:  # noqa: BLE001 - not every error of aiohttp is a ClientError
        raise translated(error) from None


class AsyncAdapter(Adapter):  # type: ignore[misc]  # hvac is untyped
    """Sends hvac's requests through an aiohttp session, and returns decoded JSON, as hvac's own does.

    Args:
        base_uri: Vault's address.
        token: the token to present; empty for none.
        session: lends the current session for one request.
        namespace: Vault's namespace, if not the root.
        server_hostname: the name that Vault's certificate must have, if not that of the address.
    """

    def __init__(
        self,
        *,
        base_uri: str,
        token: str,
        session: Callable[[], AbstractAsyncContextManager[aiohttp.ClientSession]],
        namespace: str | None,
        server_hostname: str | None,
        **_unused: object,
    ) -> None:
        self._base_uri = base_uri.rstrip("/")
        self._session = session
        self._server_hostname = server_hostname
        self._headers = {"X-Vault-Request": "true", "Content-Type": "application/json"}
        if token:
            self._headers["X-Vault-Token"] = token
        if namespace:
            self._headers["X-Vault-Namespace"] = namespace

    def get_login_token(self, response: Mapping[str, Any]) -> str:
        """Return the token of a login's answer."""
        token: str = response["auth"]["client_token"]
        return token

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        **_unused: object,
    ) -> Any:
        """Return the decoded answer; None if it is empty or not JSON.

        Raises:
            SignerUnavailable: the answer is a redirect, which is not followed, so that no other host gets
                the token; or it is too long; or an error that is not Vault's.
            hvac.exceptions.VaultError: the answer is an error.
            aiohttp.ClientError, TimeoutError: there is no answer.
        """
        async with (
            self._session() as session,
            session.request(
                method,
                f"{self._base_uri}{url}?{urlencode(params)}" if params else f"{self._base_uri}{url}",
                data=None if json is None else msgspec.json.encode(json),
                headers=self._headers,
                server_hostname=self._server_hostname,
                allow_redirects=False,
                auto_decompress=False,  # not requested, and a decompression bomb is possible
            ) as response,
        ):
            content = await _read(response)
        answer = _decoded(content)
        if response.status >= _BAD_REQUEST:
            errors = _errors(answer)
            if errors is None and not _may_be_of_a_proxy(response.status):
                raise SignerUnavailable(
                    f"the server is not Vault: status {response.status} without Vault's `errors`",
                    reason="bad-answer",
                )
            text = content.decode(errors="replace")
            utils.raise_for_error(method, url, response.status, text, errors, text, answer)
        if response.status >= _MULTIPLE_CHOICES:
            raise SignerUnavailable(
                "Vault redirects: this node is a standby that does not forward; "
                "set the address to the active node, or to a load balancer that finds it",
                reason="standby",
            )
        return answer


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = b""
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            response.close()  # aiohttp would otherwise read the rest, to reuse the connection
            raise SignerUnavailable(
                f"Vault's answer has more than {MAX_ANSWER_BYTES} bytes", reason="bad-answer"
            )
    return content


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _errors(answer: Any) -> list[str] | None:
    errors = answer.get("errors") if isinstance(answer, dict) else None
    return [str(error) for error in errors] if isinstance(errors, list) else None


def _may_be_of_a_proxy(status: int) -> bool:
    """Whether a proxy in front of Vault answers so when Vault is unavailable or busy."""
    return status == _TOO_MANY_REQUESTS or status > _SERVER_ERROR


_MEANINGS: dict[type[Exception], tuple[type[SignerError], str | None, str]] = {
    vault.Forbidden: (TokenNotAccepted, None, "Vault: {words}"),
    vault.Unauthorized: (TokenNotAccepted, None, "Vault: {words}"),
    vault.InvalidPath: (SignerRefused, "not-found", "not found in Vault ({words})"),
    vault.RateLimitExceeded: (SignerUnavailable, "rate-limited", "Vault limits the rate: {words}"),
    vault.VaultDown: (SignerUnavailable, None, "Vault does not serve: {words}"),
    vault.BadGateway: (SignerUnavailable, None, "Vault does not serve: {words}"),
    vault.VaultNotInitialized: (SignerUnavailable, "sealed", "Vault is not initialized"),
    vault.UnexpectedError: (SignerUnavailable, None, "Vault does not serve: {words}"),
    vault.VaultError: (SignerRefused, None, "Vault: {words}"),
    aiohttp.ClientConnectorCertificateError: (
        SignerUnavailable,
        "tls",
        "Vault's certificate is not accepted ({words}); MACP_AUTH_VAULT_CACERT must name its authority",
    ),
    aiohttp.ClientSSLError: (
        SignerUnavailable,
        "tls",
        "TLS with Vault failed: {words}",
    ),
    aiohttp.ConnectionTimeoutError: (SignerUnavailable, "unreachable", "Vault can't be reached in time"),
    aiohttp.ServerTimeoutError: (SignerUnavailable, "timeout", "Vault did not answer in time"),
    aiohttp.ClientConnectionError: (SignerUnavailable, "unreachable", "Vault can't be reached: {words}"),
    aiohttp.ClientPayloadError: (SignerUnavailable, "unreachable", "Vault can't be reached: {words}"),
    aiohttp.InvalidURL: (SignerMisconfigured, None, "MACP_AUTH_VAULT_ADDR is not a valid address"),
    aiohttp.ClientError: (SignerUnavailable, "bad-answer", "Vault's answer can't be read ({words})"),
    TimeoutError: (SignerUnavailable, "timeout", "Vault did not answer in time"),
    OSError: (SignerUnavailable, "unreachable", "Vault can't be reached: {words}"),
    ValueError: (SignerMisconfigured, None, "the settings do not make a valid request ({kind})"),
    RuntimeError: (SignerUnavailable, "stopping", "the connections to Vault are closed ({kind})"),
    Exception: (SignerUnavailable, "bad-answer", "Vault's answer can't be read ({kind})"),
}
"""The meaning of each error, by its class or its nearest parent class.

Texts that may quote a part of the request are replaced by the error's kind.
"""


def translated(error: Exception) -> SignerError:
    """Return the domain's error for one of hvac's or of aiohttp's."""
    words = _words(error)
    if isinstance(error, vault.VaultDown) and "sealed" in words.lower():
        return SignerUnavailable("Vault is sealed", reason="sealed")
    if isinstance(error, vault.InternalServerError) and "node not active" in words:
        return SignerUnavailable("Vault is electing its active node", reason="standby")
    if isinstance(cause := _cause(error), ssl.SSLError) and cause.reason in _PLAIN_TEXT:
        return SignerUnavailable(
            "Vault does not use TLS there: the address must begin with http://, or Vault needs a certificate",
            reason="no-tls",
        )
    if isinstance(cause, ssl.SSLError) and _CLIENT_CERTIFICATE_ALERT.search(cause.reason or ""):
        return SignerUnavailable(
            f"Vault does not accept this client certificate, or requires one ({words}); see "
            "MACP_AUTH_VAULT_CLIENT_CERT",
            reason="tls",
        )
    if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _NAME_MISMATCH:
        return SignerUnavailable(
            f"Vault's certificate is for another name ({words}); set MACP_AUTH_VAULT_ADDR to a name that it "
            "has, or MACP_AUTH_VAULT_TLS_SERVER_NAME",
            reason="tls",
        )
    known = next(ancestor for ancestor in type(error).__mro__ if ancestor in _MEANINGS)
    meaning, reason, text = _MEANINGS[known]
    return meaning(text.format(words=words, kind=type(error).__name__), reason=reason)


def _words(error: Exception) -> str:
    cause = _cause(error)
    if isinstance(cause, vault.VaultError):
        text = ", ".join(cause.errors or [])
    elif isinstance(cause, OSError):
        text = _words_of_system(cause)
    else:
        text = str(cause)
    return " ".join(text.split())[:_LONGEST_DETAIL] or type(error).__name__


def _cause(error: Exception) -> Exception:
    """Return the cause of aiohttp's error, which has no address in its text."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    if isinstance(error, aiohttp.ClientOSError) and isinstance(error.__cause__, ssl.SSLError):
        return error.__cause__  # an alert after the handshake
    return error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error


def _words_of_system(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    # TLS and the resolver have other numbers; asyncio's texts of system errors contain addresses.
    if isinstance(error, ssl.SSLError):
        return (error.reason or "").replace("_", " ").lower()
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    if error.errno == errno.ECONNRESET:  # the server's alert may be lost with the connection
        return f"{os.strerror(error.errno)}; Vault may not accept MACP_AUTH_VAULT_CLIENT_CERT"
    return os.strerror(error.errno)
