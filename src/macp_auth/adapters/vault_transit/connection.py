"""One server, reached through hvac: where it is, how long an answer may take, and what its errors mean.

Nothing of hvac or urllib3 leaves this package but as an error of the domain. Vault's own words go
into that error's text, which is for the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hvac
import urllib3
from hvac import exceptions as vault
from urllib3 import exceptions as http

from macp_auth.adapters.vault_transit.settings import VaultSettings
from macp_auth.adapters.vault_transit.transport import PooledAdapter
from macp_auth.domain.errors import SignerError, SignerRefused, SignerUnavailable

_LONGEST_DETAIL = 300  # characters of Vault's own words in a log line


class TokenNotAccepted(SignerRefused):
    """Vault's answer is 403: the token is not known any more, or no policy allows the request.

    Vault does not say which of the two it is.
    """

    default_reason = "permission-denied"


class Connection:
    """Connections to one Vault server, shared by the threads that call it."""

    def __init__(self, settings: VaultSettings, threads: int) -> None:
        self._settings = settings
        self._pool = urllib3.connection_from_url(
            settings.addr,
            maxsize=threads,
            retries=False,
            timeout=urllib3.Timeout(
                connect=settings.connect_timeout_ms / 1000, read=settings.timeout_ms / 1000
            ),
            **({"ca_certs": settings.cacert} if settings.cacert else {}),
        )

    def client(self, token: str = "") -> hvac.Client:
        """Return a client that presents ``token``, or none, to log in with."""
        return hvac.Client(
            url=self._settings.addr,
            token=token,
            namespace=self._settings.namespace,
            session=self._pool,
            adapter=PooledAdapter,
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what a client's method returns. Blocks until then.

    Raises:
        SignerUnavailable: no answer, or one that may be another later.
        SignerRefused: Vault will not.
    """
    try:
        return function(*arguments, **named)
    except (vault.VaultError, http.HTTPError) as error:
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
    http.SSLError: (
        SignerUnavailable,
        "tls",
        "Vault's certificate is not accepted ({words}); MACP_AUTH_VAULT_CACERT must name its authority",
    ),
    http.ConnectTimeoutError: (SignerUnavailable, "unreachable", "Vault can't be reached in time"),
    http.TimeoutError: (SignerUnavailable, "timeout", "Vault did not answer in time"),
    http.NewConnectionError: (SignerUnavailable, "unreachable", "Vault can't be reached: {words}"),
    http.ProtocolError: (SignerUnavailable, "unreachable", "Vault can't be reached: {words}"),
    http.HTTPError: (SignerUnavailable, "bad-answer", "Vault's answer can't be read ({words})"),
}
"""What each error means; of a class and its parents, the first that is here counts."""


def translated(error: Exception) -> SignerError:
    """Return the domain's error for one of hvac's or of urllib3's."""
    words = _words(error)
    if isinstance(error, vault.VaultDown) and "sealed" in words.lower():
        return SignerUnavailable("Vault is sealed", reason="sealed")
    known = next(ancestor for ancestor in type(error).__mro__ if ancestor in _MEANINGS)
    meaning, reason, text = _MEANINGS[known]
    return meaning(text.format(words=words), reason=reason)


def _words(error: Exception) -> str:
    text = ", ".join(error.errors or []) if isinstance(error, vault.VaultError) else str(error)
    return " ".join(text.split())[:_LONGEST_DETAIL] or type(error).__name__
