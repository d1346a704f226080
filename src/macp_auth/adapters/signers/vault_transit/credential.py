"""The Vault token: logs in, renews the token before it expires, and replaces it."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import hvac
import msgspec
import structlog
from msgspec import Struct

from macp_auth.adapters.input_file import Content, Custody, FileUnusable, InputFile, Weakness
from macp_auth.adapters.signers.vault_transit.connection import Connection
from macp_auth.adapters.signers.vault_transit.settings import (
    KUBERNETES_TOKEN_FILE,
    AuthMethod,
    VaultSettings,
    is_sendable,
    variable,
)
from macp_auth.adapters.signers.vault_transit.transport import TokenNotAccepted, call
from macp_auth.domain.errors import SignerError, SignerRefused, SignerUnavailable, reason_of
from macp_auth.domain.redaction import conceal
from macp_auth.domain.secret import Secret
from macp_auth.domain.statistics import Statistics

_LESS_THAN_A_SECOND = 0.5  # the ttl of a token that ends within a second: Vault says 0, which means unlimited
_LOCKING_PAUSE = 300.0  # seconds; by OpenBao's defaults, five bad secret ids in 15 minutes lock a role
_MAX_BYTES = 64 * 1024
_RENEW_AT = 0.6  # of a lease; the rest is for retries while Vault is unavailable
_WORTH_KEEPING = 0.5  # of the first lease; a token that renews to less is near its maximum, and is replaced
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds between attempts to renew
_REFUSED_SECONDS = 1.0  # pause after a refused login
_log = structlog.get_logger()


class Lease(Struct, frozen=True, kw_only=True):
    """A token and its lifetime."""

    client: hvac.Client
    """Presents the token."""
    seconds: float
    """Lifetime since the login or the renewal; 0 if it never expires."""
    renewable: bool
    revocable: bool
    """Whether the service logged in for it, and so revokes it at the end."""

    @property
    def needs_operator(self) -> bool:
        """Whether only an operator can replace it."""
        return bool(self.seconds) and not self.renewable and not self.revocable


class _Auth(Struct):
    """The result of a login or a renewal."""

    client_token: str
    lease_duration: float
    renewable: bool = False

    def __repr__(self) -> str:
        return "_Auth(...)"


class _Token(Struct):
    """The result of looking up a token."""

    ttl: float
    expire_time: str | None = None
    renewable: bool = False


class _RefusedSecretId(Struct, frozen=True):
    """A secret id that Vault refused."""

    secret_id: str
    until: float
    """When it may be presented again, by the monotonic clock."""
    text: str
    """Not the error: its traceback would grow each time it is raised."""

    def __repr__(self) -> str:
        return "_RefusedSecretId(...)"


class Login:
    """Logs in by the configured method."""

    def __init__(self, settings: VaultSettings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._refusal: _RefusedSecretId | None = None
        self._file = _credential_file(settings)
        self.weaknesses: list[Weakness] = []
        """Weaknesses of the credential file's permissions, as of the last read."""

    async def log_in(self) -> Lease:
        """Return a new lease.

        Raises:
            SignerRefused: the credential is not accepted, or the auth method does not exist.
            SignerUnavailable: no answer, or a file can't be read.
        """
        with _reading_an_answer():
            if self._settings.auth is AuthMethod.TOKEN:
                return await self._look_up()
            auth = msgspec.convert((await self._present_credential())["auth"], _Auth)
        if not is_sendable(auth.client_token):
            raise SignerUnavailable("Vault's answer to the login has no token", reason="bad-answer")
        client = self._connection.client(auth.client_token)
        return Lease(client=client, seconds=auth.lease_duration, renewable=auth.renewable, revocable=True)

    async def renew(self, lease: Lease) -> Lease:
        """Return ``lease`` with the lifetime that Vault grants.

        Raises:
            SignerRefused: the token is no longer known.
            SignerUnavailable: no answer.
        """
        with _reading_an_answer():
            auth = msgspec.convert((await call(lease.client.auth.token.renew_self))["auth"], _Auth)
        return Lease(
            client=lease.client,
            seconds=auth.lease_duration,
            renewable=auth.renewable,
            revocable=lease.revocable,
        )

    async def revoke(self, lease: Lease) -> None:
        """Revoke the lease, if it is revocable.

        Raises:
            SignerError: Vault did not revoke it; it expires by itself.
        """
        if lease.revocable:
            await call(lease.client.auth.token.revoke_self)

    async def _look_up(self) -> Lease:
        settings = self._settings
        token = await self._credential(settings.token)
        client = self._connection.client(token)
        try:
            found = msgspec.convert((await call(client.auth.token.lookup_self))["data"], _Token)
        except TokenNotAccepted:
            raise SignerRefused(
                "Vault does not accept the token of MACP_AUTH_VAULT_TOKEN or MACP_AUTH_VAULT_TOKEN_FILE: "
                "it has expired, was revoked, is of another Vault, or lacks the policy `default`, with which "
                "a token may look itself up; provide a new one",
                reason="credential-refused",
            ) from None
        # A root token has no `renewable`.
        ends_soon = not found.ttl and found.expire_time is not None
        seconds = _LESS_THAN_A_SECOND if ends_soon else found.ttl
        return Lease(client=client, seconds=seconds, renewable=found.renewable, revocable=False)

    async def _present_credential(self) -> Any:
        settings, auth = self._settings, self._connection.client().auth
        _conceal_role_id(settings.role_id or "")
        mount = settings.login_mount
        try:
            match settings.auth:
                case AuthMethod.APPROLE:
                    return await self._present_secret_id(auth.approle.login, mount)
                case AuthMethod.KUBERNETES:
                    jwt = await self._credential(None)
                    login = auth.kubernetes.login
                    return await call(login, settings.role, jwt, use_token=False, mount_point=mount)
                case AuthMethod.CERT:  # hvac's method needs the files of a requests session
                    role = {} if settings.role is None else {"name": settings.role}
                    login = self._connection.client().adapter.login
                    return await call(login, f"/v1/auth/{mount}/login", use_token=False, json=role)
                case _:
                    jwt = await self._credential(None)
                    login = auth.jwt.jwt_login
                    return await call(login, settings.role, jwt, use_token=False, path=mount)
        except SignerRefused as error:
            raise SignerRefused(
                f"Vault refuses the login by {settings.auth} at auth/{mount}: {error}",
                reason="not-found" if error.reason == "not-found" else "credential-refused",
            ) from None

    async def _present_secret_id(self, login: Callable[..., Any], mount: str) -> Any:
        """Log in by AppRole; a refused secret id is not presented again soon, or Vault locks the role."""
        secret_id, refusal = await self._credential(self._settings.secret_id), self._refusal
        if refusal is not None and secret_id == refusal.secret_id and time.monotonic() < refusal.until:
            raise SignerRefused(refusal.text)
        try:
            return await call(login, self._settings.role_id, secret_id, use_token=False, mount_point=mount)
        except SignerRefused as error:
            if error.reason == "not-found":
                raise  # no role that Vault could lock
            again = f"this secret id is tried again in {_LOCKING_PAUSE / 60:.0f} minutes, a new one at once"
            self._refusal = _RefusedSecretId(
                secret_id, time.monotonic() + _LOCKING_PAUSE, f"{error}; {again}"
            )
            raise SignerRefused(self._refusal.text) from None

    async def _credential(self, given: Secret[str] | None) -> str:
        """Return ``given``, or the content of the credential's file."""
        if self._file is None:
            assert given is not None  # noqa: S101 - settings.check
            return given.reveal()
        source = _source(self._settings)
        try:
            content = await self._file.read_async()
        except FileUnusable as error:
            raise _unreadable(f"{source} {error}") from None
        self._warn(content.weaknesses, source)
        return _only_line(content, source)

    def _warn(self, weaknesses: list[Weakness], source: str) -> None:
        """Log the weaknesses of the file when they have changed."""
        if weaknesses != self.weaknesses:
            self.weaknesses = weaknesses
            for weakness in weaknesses:
                detail = f"{source}: {weakness.text}; {weakness.remedy}"
                _log.warning("others can get at a credential for Vault", detail=detail)


@contextmanager
def _reading_an_answer() -> Iterator[None]:
    try:
        yield
    except (TypeError, KeyError, msgspec.ValidationError):
        raise SignerUnavailable("Vault's answer to the login can't be read", reason="bad-answer") from None


_CREDENTIALS = {
    AuthMethod.TOKEN: ("token_file", Custody.CREDENTIAL),
    AuthMethod.APPROLE: ("secret_id_file", Custody.CREDENTIAL),
    AuthMethod.KUBERNETES: ("jwt_file", Custody.JWT),
    AuthMethod.JWT: ("jwt_file", Custody.JWT),
}


def _credential_file(settings: VaultSettings) -> InputFile | None:
    if settings.auth not in _CREDENTIALS:
        return None
    field, custody = _CREDENTIALS[settings.auth]
    path: str | None = getattr(settings, field)
    if path is None and settings.auth is AuthMethod.KUBERNETES:
        path = KUBERNETES_TOKEN_FILE
    return None if path is None else InputFile(Path(path), custody, _MAX_BYTES)


def _source(settings: VaultSettings) -> str:
    """Return the name of the credential's file for messages: its path may contain a credential."""
    field, _ = _CREDENTIALS[settings.auth]
    name = variable(field)
    return name if getattr(settings, field) is not None else f"{name} (unset: {KUBERNETES_TOKEN_FILE})"


def _only_line(content: Content, source: str) -> str:
    try:
        text = content.data.decode().strip()
    except UnicodeDecodeError:
        raise _unreadable(f"{source} can't be read: it is not text") from None
    if not text:
        raise _unreadable(f"{source} is empty")
    if not is_sendable(text):
        raise _unreadable(f"{source} can't be read: it has control characters, or more than one line")
    conceal(text)
    return text


def _conceal_role_id(role_id: str) -> None:
    """Conceal a generated role id, which is half of the credential. Any other is only a name."""
    try:
        UUID(role_id)
    except ValueError:
        return
    conceal(role_id)


def _unreadable(text: str) -> SignerUnavailable:
    return SignerUnavailable(text, reason="credential-unreadable")


class _RefusedLogin(Struct, frozen=True):
    """The last refused login; not the error, whose traceback would grow each time it is raised."""

    text: str
    reason: str
    until: float


class Credential:
    """Holds one lease, and renews or replaces it in the background before it expires.

    Args:
        log_in: returns a new lease.
        renew: renews a lease.
    """

    def __init__(
        self, log_in: Callable[[], Awaitable[Lease]], renew: Callable[[Lease], Awaitable[Lease]]
    ) -> None:
        self._log_in = log_in
        self._renew = renew
        self._lease: Lease | None = None
        self._since = -math.inf
        self._expires = -math.inf
        self._first_seconds = 0.0
        self._accepted_for: set[str] = set()
        self._refusal: _RefusedLogin | None = None
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None
        self._logins = self._renewals = self._failures = 0

    @property
    def current(self) -> Lease | None:
        """The current lease, even if it has expired."""
        return self._lease

    @property
    def seconds_left(self) -> float:
        """Seconds until the current lease expires; infinite if it never does."""
        return self._expires - _now()

    async def lease(self) -> Lease:
        """Return a lease that has not expired.

        Raises:
            SignerError: the login failed.
        """
        if (lease := self._lease) is not None and self.seconds_left > 0:
            return lease
        return await self._replace(lease)

    def mark_used(self, lease: Lease, operation: str) -> None:
        """Record that Vault accepted ``lease`` for this operation."""
        if self._is_current(lease):
            self._accepted_for.add(operation)

    async def replacement_for(self, lease: Lease, operation: str) -> Lease | None:
        """Return another lease for a retry after Vault has refused ``lease``; None if a retry is useless.

        If Vault accepted it for this operation before, it was revoked or expired early, and a new login
        helps. Otherwise it lacks a permission, as a new one would.

        Raises:
            SignerError: the login failed.
        """
        if self._is_current(lease) and operation not in self._accepted_for:
            return None
        return await self._replace(lease)

    def statistics(self) -> Statistics:
        """Return the counts of logins, renewals and failures, and the seconds left if the lease expires."""
        counts = {
            "logins_total": self._logins,
            "credential_renewals_total": self._renewals,
            "credential_renewal_failures_total": self._failures,
        }
        if self._lease is None or math.isinf(self._expires):
            return counts
        return {**counts, "credential_seconds_left": self.seconds_left}

    async def aclose(self) -> None:
        """Stop renewing. The lease stays."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])

    def _is_current(self, lease: Lease) -> bool:
        return self._lease is not None and lease.client is self._lease.client

    async def _replace(self, old: Lease | None) -> Lease:
        async with self._lock:
            if self._lease is not None and (old is None or not self._is_current(old)):
                return self._lease  # replaced while this call waited for the lock
            asked = _now()
            lease = await self._log_in_unless_refused()
            self._logins += 1
            self._first_seconds, self._accepted_for = lease.seconds, set()
            self._set(lease, asked)
            if self._renewing is None:
                self._renewing = asyncio.create_task(self._renew_forever())
            _log.info("logged in to Vault", lease_seconds=lease.seconds, renewable=lease.renewable)
            if lease.needs_operator:
                _log.warning(
                    "the Vault token ends, and can't be renewed: replace it", seconds_left=lease.seconds
                )
            return lease

    async def _log_in_unless_refused(self) -> Lease:
        if self._refusal is not None and _now() < self._refusal.until:
            raise SignerRefused(self._refusal.text, reason=self._refusal.reason)
        try:
            return await self._log_in()
        except SignerRefused as error:
            self._refusal = _RefusedLogin(str(error), error.reason, _now() + _REFUSED_SECONDS)
            raise

    def _set(self, lease: Lease, since: float) -> None:
        self._lease, self._since = lease, since
        self._expires = since + (lease.seconds or math.inf)
        self._changed.set()

    async def _renew_forever(self) -> None:
        """Renew the lease whenever it is due."""
        pause = _SHORTEST_PAUSE
        while True:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_renewal(pause)):
                    await self._changed.wait()
                continue
            try:
                await self._renew_or_replace()
                pause = _SHORTEST_PAUSE
            except Exception as error:  # noqa: BLE001 - the loop must survive any error
                self._failures += 1
                pause = min(2 * pause, _LONGEST_PAUSE)
                _log.warning(
                    "Vault token not renewed; trying again",
                    seconds_left=round(self.seconds_left),
                    reason=reason_of(error),
                    detail=str(error) if isinstance(error, SignerError) else type(error).__name__,
                )

    def _until_renewal(self, pause: float) -> float | None:
        assert self._lease is not None  # noqa: S101 - the loop starts with the first one
        if not self._lease.seconds:
            return None
        due = self._since + _RENEW_AT * self._lease.seconds * random.uniform(0.9, 1)  # noqa: S311
        return max(due - _now(), pause)

    async def _renew_or_replace(self) -> None:
        assert self._lease is not None  # noqa: S101
        lease = self._lease
        if lease.renewable:
            with suppress(SignerRefused):
                asked = _now()
                renewed = await self._renew(lease)
                if not self._is_current(lease):
                    return  # replaced meanwhile
                if renewed.seconds >= _WORTH_KEEPING * self._first_seconds:
                    self._set(renewed, asked)
                    self._renewals += 1
                    return
        await self._replace(lease)


def _now() -> float:
    return asyncio.get_running_loop().time()
