"""The connections to one Vault server; reloads the TLS files when they change."""

from __future__ import annotations

import asyncio
import math
import os
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import hvac
import structlog

from macp_auth.adapters.blocking_call import BlockingCall
from macp_auth.adapters.input_file import (
    READ_SECONDS,
    Custody,
    FileUnusable,
    InputFile,
    file_version,
    input_file,
)
from macp_auth.adapters.name_resolution import DaemonResolver
from macp_auth.adapters.signers.vault_transit.settings import TRUSTED, VaultSettings, names
from macp_auth.adapters.signers.vault_transit.transport import AsyncAdapter
from macp_auth.domain.errors import SignerMisconfigured, SignerUnavailable
from macp_auth.domain.redaction import conceal

_MAX_BYTES = 4 * 2**20  # all the public authorities are 0.2 MiB
_FILES = ("cacert", "capath", "client_cert", "client_key")
_CHECK_INTERVAL_SECONDS = 0.5
"""How often the TLS files are checked, in a thread: their file system may hang."""
_PATIENCE_SECONDS = 0.1  # how long one request waits for that check
_log = structlog.get_logger()
_Session = aiohttp.ClientSession


class Connection:
    """Connections to one Vault server, for one event loop; opened on first use."""

    def __init__(self, settings: VaultSettings) -> None:
        self._settings = settings
        self._current: _Session | None = None
        self._calls: Counter[_Session] = Counter()
        """The number of calls in flight, by session."""
        self._files = files(settings)
        self._check = BlockingCall(self._changed_tls, "vault-tls")
        self._seen: object = None
        """The versions of the TLS files in the newest session."""
        self._check_at = -math.inf
        """When the files are checked next, by the loop's clock."""
        self._failure: str | None = None
        """Why the files were unusable at the last check."""
        self._silent_since: float | None = None  # when a check first took too long
        self._closed = False

    def client(self, token: str = "") -> hvac.Client:
        """Return a client that presents ``token``; none to log in. Its methods are awaited."""
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
        """Lend the session for a request. The last request of a replaced session closes it.

        Raises:
            SignerMisconfigured: the TLS files are unusable, and always were.
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
        """Return the current session, which is replaced when a TLS file has changed."""
        if self._closed:
            raise SignerUnavailable("the connections to Vault are closed", reason="stopping")
        now = asyncio.get_running_loop().time()
        if self._current is None or now >= self._check_at:
            self._check_at = now + _CHECK_INTERVAL_SECONDS if self._files else math.inf
            await self._check_files()
        assert self._current is not None  # noqa: S101 - the first check sets it, or raises
        return self._current

    async def _check_files(self) -> None:
        """Replace the session if the TLS files have changed; keep it while they are unusable."""
        seconds = READ_SECONDS if self._current is None else _PATIENCE_SECONDS
        try:
            if self._files:
                changed = await self._check.result_async(seconds)
            else:
                changed = self._changed_tls()  # the system's own files, and only once
        except SignerMisconfigured as error:  # a file may be half-written
            self._files_failed(str(error))
            return
        except TimeoutError:  # the check continues; a later request may get its result
            self._silent_since = self._silent_since or time.monotonic()
            if self._current is None or time.monotonic() - self._silent_since > READ_SECONDS:
                variables = ", ".join(map(names, self._files))
                self._files_failed(f"{variables} can't be read: the file system does not answer")
            return
        self._failure = self._silent_since = None
        if self._closed:
            raise SignerUnavailable("the connections to Vault are closed", reason="stopping")
        if changed is not None and changed[0] != self._seen:  # no other request was faster
            self._seen, context = changed
            old, self._current = self._current, _open(self._settings, context)
            if old is not None:
                await self._close_unless_used(old)

    def _files_failed(self, text: str) -> None:
        """Log once why the TLS files are unusable; the last good ones stay in use.

        Raises:
            SignerMisconfigured: there are none.
        """
        if self._current is None:
            raise SignerMisconfigured(text, reason="tls")
        if text != self._failure:
            _log.error("cannot use the TLS files for Vault; keeping the last good ones", detail=text)
        self._failure = text

    def _changed_tls(self) -> tuple[object, ssl.SSLContext] | None:
        """Return the files' versions and a context if they have changed. Blocks."""
        paths = (each for path in self._files.values() for each in (path, *_files_in(path)))
        seen = [file_version(path) for path in paths]  # before they are read
        return None if seen == self._seen else (seen, client_context(self._settings))

    async def _close_unless_used(self, session: _Session) -> None:
        """Close a replaced session without calls, so that its trust ends too."""
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


def _open(settings: VaultSettings, tls: ssl.SSLContext) -> _Session:
    return _Session(
        # If a DNS name leads to the active node, a failover is noticed within a second.
        connector=aiohttp.TCPConnector(ssl=tls, ttl_dns_cache=1, resolver=DaemonResolver()),
        timeout=aiohttp.ClientTimeout(
            total=settings.timeout_ms / 1000, sock_connect=settings.connect_timeout_ms / 1000
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    )


def client_context(settings: VaultSettings) -> ssl.SSLContext:
    """Return the TLS context of connections to Vault. Blocks while it reads files.

    Raises:
        SignerMisconfigured: a file is unusable; the text names the variable.
    """
    # Not create_default_context(), which writes TLS secrets to SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted = next((field for field in TRUSTED if getattr(settings, field) is not None), None)
    if trusted is None:
        context.load_default_certs()
    else:
        # As in Vault's own commands, an intermediate or Vault's own certificate may be the trust anchor.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        pem = _authorities(trusted, getattr(settings, trusted))
        try:
            context.load_verify_locations(cadata=pem.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError):
            raise _unusable(trusted, f"must be {_EXPECTED[trusted]}") from None
    if settings.client_cert is not None and settings.client_key is not None:
        _present(context, settings.client_cert, settings.client_key)
    return context


_EXPECTED = {
    "cacert": "the path of a PEM file of certificates",
    "cacert_bytes": "certificates in PEM",
    "capath": "the path of a folder with PEM files of certificates",
}


def files(settings: VaultSettings) -> dict[str, Path]:
    """Return the configured files and folders, by field."""
    return {field: Path(path) for field in _FILES if (path := getattr(settings, field)) is not None}


def _files_in(folder: Path) -> Iterator[Path]:
    for parent, _, children in os.walk(folder):
        yield from (Path(parent, child) for child in sorted(children))


def _authorities(field: str, value: str) -> bytes:
    if field == "cacert_bytes":
        return value.encode()
    path = Path(value)
    try:
        if field == "cacert":
            return input_file(path, Custody.PUBLIC, _MAX_BYTES).read().data
        path.stat()
        return b"\n".join(InputFile(each, Custody.PUBLIC, _MAX_BYTES).read().data for each in _files_in(path))
    except FileUnusable as error:
        raise _unusable(field, str(error)) from None
    except OSError as error:
        raise _unusable(field, f"can't be read: {error.strerror}") from None


def _present(context: ssl.SSLContext, certificate: str, key: str) -> None:
    for field, path, custody in (
        ("client_cert", certificate, Custody.PUBLIC),
        ("client_key", key, Custody.KEYS),
    ):
        try:
            input_file(Path(path), custody, _MAX_BYTES).read()
        except FileUnusable as error:
            raise _unusable(field, str(error)) from None
    try:
        context.load_cert_chain(
            certificate, key, password=""
        )  # without a password, OpenSSL asks the terminal
    except (OSError, ValueError):
        raise _unusable(
            "client_cert",
            f"and {names('client_key')} must be PEM files of a certificate and its private key, which has no "
            "password",
        ) from None


def _unusable(field: str, text: str) -> SignerMisconfigured:
    return SignerMisconfigured(f"{names(field)} {text}", reason="tls")
