"""One server, reached through hvac: where it is, how long an answer may take, and what its errors mean.

Nothing of hvac or aiohttp leaves this package but as an error of the domain. Vault's own words go
into that error's text, which is for the log.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import hvac
import structlog
from hvac import exceptions as vault
from msgspec import Struct

from macp_auth.adapters.blocking_call import BlockingCall
from macp_auth.adapters.input_file import READ_SECONDS
from macp_auth.adapters.signers.vault_transit.settings import VaultSettings, names
from macp_auth.adapters.signers.vault_transit.tls import client_context, files, look
from macp_auth.adapters.signers.vault_transit.transport import AsyncAdapter
from macp_auth.domain.errors import SignerError, SignerMisconfigured, SignerRefused, SignerUnavailable
from macp_auth.domain.redaction import conceal

_LONGEST_DETAIL = 300  # characters of Vault's own words in a log line
_PLAIN_TEXT = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}
"""What OpenSSL calls an answer without TLS; which of them depends on its version."""
_OF_CLIENT_CERTIFICATE = re.compile(r"ALERT_.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)")
"""What OpenSSL calls the alerts (RFC 8446, section 6.2) that a server sends about a client's certificate."""
_OF_NAME = {62, 64}  # x509_vfy.h: X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_LOOK_SECONDS = 0.5
"""How often the files of TLS are looked at, in a thread: their file system may hang."""
_PATIENCE_SECONDS = 0.1  # how long a request waits for that look; the next ones don't
_log = structlog.get_logger()
_Session = aiohttp.ClientSession


class TokenNotAccepted(SignerRefused):
    """Vault's answer is 403: the token is not known any more, or no policy allows the request.

    Vault does not say which of the two it is.
    """

    default_reason = "permission-denied"


class Connection:
    """Connections to one Vault server, for one event loop. Opened when the first is needed."""

    def __init__(self, settings: VaultSettings) -> None:
        self._settings = settings
        self._current: _Session | None = None
        self._calls: Counter[_Session] = Counter()
        """How many calls are in flight, by the session that they are on."""
        self._files = files(settings)
        self._look = BlockingCall(self._changed_tls, "vault-tls")
        self._seen: object = None
        """The files of TLS, as they were when the newest session was made."""
        self._look_at = -math.inf
        """When the files are looked at again, by the loop's clock."""
        self._failure: str | None = None
        """Why the files could not be used when they were last looked at."""
        self._silent_since: float | None = None  # when a look at the files first took too long
        self._closed = False

    def client(self, token: str = "") -> hvac.Client:
        """Return a client that presents ``token``, or none, to log in with. Its methods are awaited."""
        conceal(token)
        return hvac.Client(
            url=self._settings.addr,
            token=token,
            namespace=self._settings.namespace,
            session=self._borrowed,
            adapter=AsyncAdapter,
            server_hostname=self._settings.tls_server_name,
        )

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[_Session]:
        """Lend the session for a request. The last request of a replaced one closes it.

        Raises:
            SignerMisconfigured: the files of TLS can't be used, and could not before.
            SignerUnavailable: the connections are closed.
        """
        session = await self._session()
        self._calls[session] += 1
        try:
            yield session
        finally:
            self._calls[session] -= 1
            await self._close_unless_used(session)

    async def _session(self) -> _Session:
        """Return the current session: another one once a file of TLS has changed."""
        if self._closed:
            raise SignerUnavailable("the connections to Vault are closed", reason="stopping")
        now = asyncio.get_running_loop().time()
        if self._current is None or now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS if self._files else math.inf
            await self._follow_files()
        assert self._current is not None  # noqa: S101 - the first look makes it, or raises
        return self._current

    async def _follow_files(self) -> None:
        """Replace the session if the files of TLS have changed; while they are no good, keep the last."""
        seconds = READ_SECONDS if self._current is None else _PATIENCE_SECONDS
        try:
            if self._files:
                changed = await self._look.result_async(seconds)
            else:
                changed = self._changed_tls()  # the system's own files, and only once
        except SignerMisconfigured as error:  # a file may be half-written
            self._files_failed(str(error))
            return
        except TimeoutError:  # the look goes on, and a later request may see what it found
            self._silent_since = self._silent_since or time.monotonic()
            if self._current is None or time.monotonic() - self._silent_since > READ_SECONDS:
                variables = ", ".join(map(names, self._files))
                self._files_failed(f"{variables} can't be read: the file system does not answer")
            return
        self._failure = self._silent_since = None
        if self._closed:
            raise SignerUnavailable("the connections to Vault are closed", reason="stopping")
        if changed is not None and changed.seen != self._seen:  # and no other request was faster
            old, self._current = self._current, _open(self._settings, changed.context)
            self._seen = changed.seen
            if old is not None:
                await self._close_unless_used(old)

    def _files_failed(self, text: str) -> None:
        """Log, once, why the files of TLS can't be used while the last good ones can.

        Raises:
            SignerMisconfigured: there are none.
        """
        if self._current is None:
            raise SignerMisconfigured(text, reason="tls")
        if text != self._failure:
            _log.error("the TLS files for Vault can't be used; the last good ones stay", detail=text)
        self._failure = text

    def _changed_tls(self) -> _TLS | None:
        """Return what to connect with if the files are not those of the newest session. Blocks."""
        seen = look(self._files)
        return None if seen == self._seen else _TLS(seen, client_context(self._settings))

    async def _close_unless_used(self, session: _Session) -> None:
        """Close a session that was replaced and has no call in flight: an older trust ends with its calls."""
        if session is not self._current and not self._calls[session]:
            del self._calls[session]
            await session.close()

    async def aclose(self) -> None:
        """Close the connections."""
        self._closed = True
        open_sessions = set(self._calls)
        if self._current is not None:
            open_sessions.add(self._current)
        for session in open_sessions:
            await session.close()


class _TLS(Struct, frozen=True):
    """What to connect with, and what the files were like before they were read."""

    seen: object
    context: ssl.SSLContext


def _open(settings: VaultSettings, tls: ssl.SSLContext) -> _Session:
    return _Session(
        # Behind a name that leads to the active node, a failover is to be seen within a second.
        connector=aiohttp.TCPConnector(ssl=tls, ttl_dns_cache=1),
        timeout=aiohttp.ClientTimeout(
            total=settings.timeout_ms / 1000, sock_connect=settings.connect_timeout_ms / 1000
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    )


async def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what a client's method has as its answer.

    Raises:
        SignerUnavailable: no answer, or one that may be another later.
        SignerRefused: Vault will not.
        SignerMisconfigured: no request can be made of the settings.
    """
    try:
        return await function(*arguments, **named)
    except SignerError:
        raise
    except Exception as error:  # noqa: BLE001 - what aiohttp lets through of its parts is no ClientError
        raise translated(error) from None


_MEANINGS: dict[type[Exception], tuple[type[SignerError], str | None, str]] = {
    vault.Forbidden: (TokenNotAccepted, None, "Vault: {words}"),
    vault.Unauthorized: (TokenNotAccepted, None, "Vault: {words}"),
    vault.InvalidPath: (SignerRefused, "not-found", "Vault has nothing there ({words})"),
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
        "TLS with Vault fails: {words}",
    ),
    aiohttp.ConnectionTimeoutError: (SignerUnavailable, "unreachable", "Vault can't be reached in time"),
    aiohttp.ServerTimeoutError: (SignerUnavailable, "timeout", "Vault did not answer in time"),
    aiohttp.ClientConnectionError: (SignerUnavailable, "unreachable", "Vault can't be reached: {words}"),
    aiohttp.ClientPayloadError: (SignerUnavailable, "unreachable", "Vault can't be reached: {words}"),
    aiohttp.InvalidURL: (SignerMisconfigured, None, "MACP_AUTH_VAULT_ADDR is no address of a server"),
    aiohttp.ClientError: (SignerUnavailable, "bad-answer", "Vault's answer can't be read ({words})"),
    TimeoutError: (SignerUnavailable, "timeout", "Vault did not answer in time"),
    OSError: (SignerUnavailable, "unreachable", "Vault can't be reached: {words}"),
    ValueError: (SignerMisconfigured, None, "no request can be made of the settings ({kind})"),
    RuntimeError: (SignerUnavailable, "stopping", "the connections to Vault are closed ({kind})"),
    Exception: (SignerUnavailable, "bad-answer", "Vault's answer can't be read ({kind})"),
}
"""What each error means; of a class and its parents, the first that is here counts.

Words of which we don't know that they quote nothing that was sent are not shown, but the error's kind.
"""


def translated(error: Exception) -> SignerError:
    """Return the domain's error for one of hvac's or of aiohttp's."""
    words = _words(error)
    if isinstance(error, vault.VaultDown) and "sealed" in words.lower():
        return SignerUnavailable("Vault is sealed", reason="sealed")
    if isinstance(error, vault.InternalServerError) and "node not active" in words:
        return SignerUnavailable("Vault elects its active node", reason="standby")
    if isinstance(cause := _cause(error), ssl.SSLError) and cause.reason in _PLAIN_TEXT:
        return SignerUnavailable(
            "Vault speaks no TLS there: the address must begin with http://, or Vault needs a certificate",
            reason="no-tls",
        )
    if isinstance(cause, ssl.SSLError) and _OF_CLIENT_CERTIFICATE.search(cause.reason or ""):
        return SignerUnavailable(
            f"Vault accepts no connection with this client certificate, or without one ({words}); see "
            "MACP_AUTH_VAULT_CLIENT_CERT",
            reason="tls",
        )
    if isinstance(cause, ssl.SSLCertVerificationError) and cause.verify_code in _OF_NAME:
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
    """Return what aiohttp reports, without the address and the words that it puts around it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    if isinstance(error, aiohttp.ClientOSError) and isinstance(error.__cause__, ssl.SSLError):
        return error.__cause__  # an alert after the handshake
    return error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error


def _words_of_system(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    # TLS and the resolver have numbers of their own, and asyncio's words for the system's have addresses.
    if isinstance(error, ssl.SSLError):
        return (error.reason or "").replace("_", " ").lower()
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    if error.errno == errno.ECONNRESET:  # its alert may be lost with the connection
        return (
            f"{os.strerror(error.errno)}, as by a listener that does not accept MACP_AUTH_VAULT_CLIENT_CERT"
        )
    return os.strerror(error.errno)
