"""The ways to get a token of Vault's, and to keep it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hvac
import msgspec
from msgspec import Struct

from macp_auth.adapters.vault_transit.connection import Connection, TokenNotAccepted, call
from macp_auth.adapters.vault_transit.settings import (
    KUBERNETES_TOKEN_FILE,
    AuthMethod,
    VaultSettings,
    is_sendable,
    variable,
)
from macp_auth.domain.errors import SignerRefused, SignerUnavailable
from macp_auth.domain.redaction import conceal

_LESS_THAN_A_SECOND = 0.5  # what is left of a token of which Vault says 0, as it says of one without end
_LOCKING_PAUSE = 300.0  # seconds; by OpenBao's defaults, five bad secret ids in 15 minutes lock a role
_MAX_BYTES = 64 * 1024  # a mistyped path must not be read into memory whole


class Lease(Struct, frozen=True, kw_only=True):
    """A token, and for how long."""

    client: hvac.Client
    """Presents the token."""
    seconds: float
    """From when it was given or renewed until it expires; 0 if it never does."""
    renewable: bool
    revocable: bool
    """We logged in for it, so it is ours to give back."""

    @property
    def ends_for_good(self) -> bool:
        """Nobody but an operator can replace it."""
        return bool(self.seconds) and not self.renewable and not self.revocable


class _Auth(Struct):
    """What a login, or a renewal, gives."""

    client_token: str
    lease_duration: float
    renewable: bool = False


class _Token(Struct):
    """What Vault says of a token that looks itself up."""

    ttl: float
    expire_time: str | None = None
    renewable: bool = False


class _Refusal(Struct, frozen=True):
    """A secret id that Vault refused."""

    secret_id: str
    until: float
    """When it may be shown to Vault again, by the monotonic clock."""
    text: str
    """Not the error: raised again and again, that would keep a traceback that grows."""


class Login:
    """Logs in as the settings say."""

    def __init__(self, settings: VaultSettings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._refusal: _Refusal | None = None

    async def log_in(self) -> Lease:
        """Return a new lease.

        Raises:
            SignerRefused: the credential is not accepted, or there is nothing to log in to.
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
        """Return ``lease``, for longer if Vault allows that.

        Raises:
            SignerRefused: the token is not known any more.
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

    async def give_back(self, lease: Lease) -> None:
        """Revoke the lease, if it is ours.

        Raises:
            SignerError: it could not be; it expires by itself.
        """
        if lease.revocable:
            await call(lease.client.auth.token.revoke_self)

    async def _look_up(self) -> Lease:
        settings = self._settings
        if settings.token_file is not None:
            token = await _content(settings.token_file, variable("token_file"))
        else:
            assert settings.token is not None  # noqa: S101 - settings.check
            token = settings.token.reveal()
        client = self._connection.client(token)
        try:
            found = msgspec.convert((await call(client.auth.token.lookup_self))["data"], _Token)
        except TokenNotAccepted:
            raise SignerRefused(
                "Vault does not accept the token of MACP_AUTH_VAULT_TOKEN or MACP_AUTH_VAULT_TOKEN_FILE: "
                "it has expired, was revoked, is of another Vault, or lacks the policy `default`, by which a "
                "token may look itself up; give a new one",
                reason="credential-refused",
            ) from None
        # Nothing is said of renewing for the root token that a new Vault gives.
        ends_soon = not found.ttl and found.expire_time is not None
        seconds = _LESS_THAN_A_SECOND if ends_soon else found.ttl
        return Lease(client=client, seconds=seconds, renewable=found.renewable, revocable=False)

    async def _present_credential(self) -> Any:
        settings, auth = self._settings, self._connection.client().auth
        conceal(settings.role_id or "")  # no secret by itself; but half of what a login needs
        mount = settings.login_mount
        try:
            match settings.auth:
                case AuthMethod.APPROLE:
                    return await self._present_secret_id(auth.approle.login, mount)
                case AuthMethod.KUBERNETES:
                    jwt = await self._jwt()
                    login = auth.kubernetes.login
                    return await call(login, settings.role, jwt, use_token=False, mount_point=mount)
                case _:
                    jwt = await self._jwt()
                    login = auth.jwt.jwt_login
                    return await call(login, settings.role, jwt, use_token=False, path=mount)
        except SignerRefused as error:
            raise SignerRefused(
                f"Vault refuses the login by {settings.auth} at auth/{mount}: {error}",
                reason="not-found" if error.reason == "not-found" else "credential-refused",
            ) from None

    async def _present_secret_id(self, login: Callable[..., Any], mount: str) -> Any:
        """Log in by AppRole; a refused secret id is not shown again soon, or Vault locks the role."""
        secret_id, refusal = await self._secret_id(), self._refusal
        if refusal is not None and secret_id == refusal.secret_id and time.monotonic() < refusal.until:
            raise SignerRefused(refusal.text)
        try:
            return await call(login, self._settings.role_id, secret_id, use_token=False, mount_point=mount)
        except SignerRefused as error:
            if error.reason == "not-found":
                raise  # there is no role to be locked
            again = f"this secret id is tried again in {_LOCKING_PAUSE / 60:.0f} minutes, another at once"
            self._refusal = _Refusal(secret_id, time.monotonic() + _LOCKING_PAUSE, f"{error}; {again}")
            raise SignerRefused(self._refusal.text) from None

    async def _secret_id(self) -> str:
        if self._settings.secret_id_file is not None:
            return await _content(self._settings.secret_id_file, variable("secret_id_file"))
        assert self._settings.secret_id is not None  # noqa: S101 - settings.check
        return self._settings.secret_id.reveal()

    async def _jwt(self) -> str:
        source = variable("jwt_file")
        if self._settings.jwt_file is not None:
            return await _content(self._settings.jwt_file, source)
        return await _content(KUBERNETES_TOKEN_FILE, f"{source} (unset: {KUBERNETES_TOKEN_FILE})")


@contextmanager
def _reading_an_answer() -> Iterator[None]:
    try:
        yield
    except (TypeError, KeyError, msgspec.ValidationError):
        raise SignerUnavailable("Vault's answer to the login can't be read", reason="bad-answer") from None


async def _content(path: str, source: str) -> str:
    """Return the credential in a file, which a message calls ``source``: its path may be one itself."""
    return await asyncio.to_thread(_read, path, source)  # a file system may make it wait


def _read(path: str, source: str) -> str:
    try:
        with Path(path).open() as file:
            content = file.read(_MAX_BYTES + 1).strip()
    except OSError as error:
        fault = f"can't be read: {error.strerror}"
    except UnicodeDecodeError:
        fault = "can't be read: it is not text"
    else:
        if not content:
            fault = "is empty"
        elif len(content) > _MAX_BYTES:
            fault = f"can't be read: it is over {_MAX_BYTES} bytes"
        elif not is_sendable(content):
            fault = "can't be read: it has control characters, or more than one line"
        else:
            conceal(content)
            return content
    raise SignerUnavailable(f"{source} {fault}", reason="credential-unreadable")
