"""The TLS context of a listening socket, which follows its files while the service runs.

The files are checked every :data:`POLL_INTERVAL_SECONDS`, also behind a symbolic link: Kubernetes updates a
mounted Secret by swapping one. Each change makes a whole new context, so that an authority that
is gone from the file is gone, and no session of before can be resumed. A connection keeps the
context that it began with, and is closed soon after.
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
from macp_auth.entrypoints.server.tls_files import end_of, load_tls, versions_of
from macp_auth.entrypoints.settings import TLSFiles

POLL_INTERVAL_SECONDS = 2.0
_DAY = 24 * 3600
_FIRST_CHECK_SECONDS = 3.0  # more than a file may take; a worker begins without a certificate then
_UNUSABLE = "cannot use TLS files; keeping the last good ones"
_log = structlog.get_logger()


class ReloadingContext(ssl.SSLContext):
    """Begins each connection with what the files gave when they were last good.

    Until they were good once, it is a context without a certificate, and every handshake fails: a
    worker that replaces a lost one while the files are broken must not bring down the others.
    """

    def __new__(cls, _files: TLSFiles) -> Self:
        """Make a context without a certificate."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, files: TLSFiles) -> None:
        self._files = files
        self._seen: object = None
        self._failure: tuple[object, str] | None = None
        self._current: ssl.SSLContext | None = None
        self.on_change: Callable[[], None] = _ignore
        """Called, in the thread that looks, when other files are in force."""
        self.certificates: Mapping[str, Validity] = {}
        """When what is in force is good, by what it is for."""
        self._expiry_log = ExpiryLog()

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a connection; what uvloop calls, and the only method that it does."""
        if self._current is None:
            return super().wrap_bio(*args, **kwargs)
        return self._current.wrap_bio(*args, **kwargs)

    def check_files(self) -> None:
        """Take up the files if they have changed; if they are no good, keep the last good ones and say so.

        Files that are no good are read again at each check: it may be this process that can't read them now.
        """
        # Seen before they are read: what changes in between is taken up at the next check.
        seen = versions_of(self._files)
        if seen == self._seen:
            self._failure = None
            return
        try:
            loaded = load_tls(self._files)
        except Exception as error:  # noqa: BLE001 - whatever it is, later files must be taken up
            self._say_once(seen, error)
        else:
            self._seen, self._failure = seen, None
            self._current, self.certificates = loaded.context, loaded.certificates
            self.on_change()
            _log.info("TLS certificate", serial=loaded.serial, expires=loaded.expires.isoformat())

    def _say_once(self, seen: object, error: Exception) -> None:
        failure = (seen, str(error))
        if failure == self._failure:
            return
        self._failure = failure
        if isinstance(error, ConfigurationError):
            _log.error(_UNUSABLE, detail=str(error))
        else:
            _log.error(_UNUSABLE, exc_info=error)

    def follow(self) -> None:
        """Check in the background; return after the first check, or when that takes too long."""
        checked = threading.Event()
        threading.Thread(target=self._poll_forever, args=(checked,), daemon=True, name="tls-files").start()
        checked.wait(_FIRST_CHECK_SECONDS)

    def _poll_forever(self, checked: threading.Event) -> None:
        while True:
            self.check_files()
            self._expiry_log.check(self.certificates, time.time())
            checked.set()
            time.sleep(POLL_INTERVAL_SECONDS)


def _ignore() -> None:
    """Do nothing."""


class ExpiryLog:
    """Logs that a certificate ends soon, or has ended: once, and again each day until it is replaced."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, Validity, bool], float] = {}

    def check(self, certificates: Mapping[str, Validity], now: float) -> None:
        """Log what is to be logged now. A certificate that is not there any more is forgotten."""
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
