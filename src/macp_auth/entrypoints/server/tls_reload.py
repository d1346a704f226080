"""The TLS context of a listening socket, which reloads its files while the service runs.

The files are checked every :data:`POLL_INTERVAL_SECONDS`, also behind a symbolic link: Kubernetes updates a
mounted Secret by swapping one. Each change makes a new context, so removed authorities are gone, and earlier
sessions cannot be resumed. An open connection keeps its context, and is closed soon after.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import structlog

from macp_auth.domain.certificates import Validity
from macp_auth.domain.errors import ConfigurationError
from macp_auth.entrypoints.server.tls_files import LoadedTLS, end_of, load_tls, versions_of
from macp_auth.entrypoints.settings import TLSFiles

POLL_INTERVAL_SECONDS = 2.0
_DAY = 24 * 3600
_FIRST_CHECK_SECONDS = 3.0  # more than a file may take; after that a worker starts without a certificate
_UNUSABLE = "cannot use TLS files; keeping the last good ones"
_UNUSABLE_AT_START = "cannot use TLS files; no handshake of this worker succeeds until it can"
_log = structlog.get_logger()


class ReloadingContext(ssl.SSLContext):
    """Begins each connection with the last usable content of the files.

    Before the first, it has no certificate, and every handshake fails: a worker that replaces a dead one
    while the files are broken must not stop the others.
    """

    def __new__(cls, _files: TLSFiles) -> Self:
        """Make a context without a certificate."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, files: TLSFiles) -> None:
        self._files = files
        self._seen: object = None
        self._failure: tuple[object, str] | None = None
        self._current: LoadedTLS | None = None
        self.on_change: Callable[[], None] = _ignore
        """Called after a reload, in the polling thread."""
        self.certificates: Mapping[str, Validity] = {}
        """The validity of the current certificates, by their use."""
        self._expiry_log = ExpiryLog()

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a connection; the only method that uvloop calls."""
        if self._current is None:
            return super().wrap_bio(*args, **kwargs)
        return self._current.context.wrap_bio(*args, **kwargs)

    def wrap_anonymous(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a connection that asks for no client certificate."""
        if self._current is None:
            return super().wrap_bio(*args, **kwargs)
        return self._current.anonymous_context.wrap_bio(*args, **kwargs)

    def check_files(self) -> None:
        """Load the files if they have changed; if they are unusable, keep the last good ones and log it once.

        Unusable files are read again at each check: the cause may be this process.
        """
        # Taken before the files are read: a change in between is loaded at the next check.
        seen = versions_of(self._files)
        if seen == self._seen:
            self._failure = None
            return
        try:
            loaded = load_tls(self._files)
        except Exception as error:  # noqa: BLE001 - later files must still be loaded
            self._log_once(seen, error)
        else:
            self._seen, self._failure = seen, None
            self._current, self.certificates = loaded, loaded.certificates
            self.on_change()
            _log.info("TLS certificate", serial=loaded.serial, expires=loaded.expires.isoformat())

    def _log_once(self, seen: object, error: Exception) -> None:
        failure = (seen, str(error))
        if failure == self._failure:
            return
        self._failure = failure
        event = _UNUSABLE_AT_START if self._current is None else _UNUSABLE
        if isinstance(error, ConfigurationError):
            _log.error(event, detail=str(error))
        else:
            _log.error(event, exc_info=error)

    def follow(self) -> None:
        """Poll in the background; return after the first check, or when it takes too long."""
        checked = threading.Event()
        threading.Thread(target=self._poll_forever, args=(checked,), daemon=True, name="tls-files").start()
        checked.wait(_FIRST_CHECK_SECONDS)

    def _poll_forever(self, checked: threading.Event) -> None:
        while True:
            self.check_files()
            self._expiry_log.check(self.certificates, time.time())
            checked.set()
            time.sleep(POLL_INTERVAL_SECONDS)


class AnonymousContext(ssl.SSLContext):
    """A :class:`ReloadingContext` for a listener that asks for no client certificate."""

    def __new__(cls, _reloading: ReloadingContext) -> Self:
        """Make a context without a certificate."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, reloading: ReloadingContext) -> None:
        self._reloading = reloading

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a connection; the only method that uvloop calls."""
        return self._reloading.wrap_anonymous(*args, **kwargs)


def _ignore() -> None:
    """Do nothing."""


class ExpiryLog:
    """Logs that a certificate expires soon or has expired, once a day until it is replaced."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, Validity, bool], float] = {}

    def check(self, certificates: Mapping[str, Validity], now: float) -> None:
        """Log what is due. A removed certificate is forgotten."""
        states = {
            (use, validity, now >= validity.ends)
            for use, validity in certificates.items()
            if validity.ends_soon(now)
        }
        self._logged = {state: at for state, at in self._logged.items() if state in states}
        for state in sorted(states):
            if abs(now - self._logged.get(state, 0.0)) < _DAY:
                continue
            self._logged[state] = now
            use, validity, expired = state
            if expired:
                _log.error("TLS certificate has expired", certificate=use, expires=end_of(validity))
            else:
                _log.warning("TLS certificate expires soon", certificate=use, expires=end_of(validity))
