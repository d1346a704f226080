"""Diagnoses Vault before a deployment goes live: the server, the token, its permissions, and the key.

Each check may depend on those before it; a failure that later checks depend on is the last finding.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlsplit

import hvac
import msgspec
from msgspec import Struct, structs

from macp_auth.adapters import jose
from macp_auth.adapters.signers.vault_transit.connection import Connection
from macp_auth.adapters.signers.vault_transit.credential import Lease, Login
from macp_auth.adapters.signers.vault_transit.settings import AuthMethod, VaultSettings
from macp_auth.adapters.signers.vault_transit.transit import ALGORITHMS, Transit, TransitKey
from macp_auth.adapters.signers.vault_transit.transport import TokenNotAccepted, call
from macp_auth.domain.diagnosis import Finding, Status, failure, ok, warning
from macp_auth.domain.errors import (
    SignerError,
    SignerMisconfigured,
    SignerRefused,
    SignerUnavailable,
    reason_of,
)
from macp_auth.domain.policy import RotationPolicy
from macp_auth.domain.rotation import Timing, schedule

T = TypeVar("T")
_CLOCK_NOTICE_SECONDS = 1  # synchronised clocks differ by milliseconds
_NEW_TOKEN = "vault token create -orphan -policy=macp-auth -period=24h"  # noqa: S105 - a command
_RENEW = "auth/token/renew-self"
_HOUR = 3600
_PROBE_INPUT = b"macp-auth doctor"  # has no dot, so its signature is never that of a token


class Check(StrEnum):
    """The checks, in order."""

    ADDRESS = "vault-address"
    SEAL = "vault-seal"
    CLOCK = "vault-clock"
    LOGIN = "vault-login"
    TOKEN = "vault-token"  # noqa: S105 - a check's name
    PERMISSIONS = "vault-permissions"
    KEY = "key"
    CUSTODY = "key-custody"
    DELETION = "key-deletion"
    ROTATION = "key-rotation"
    VERSIONS = "key-versions"
    SIGNATURE = "key-signature"


class _Blocked(Exception):
    """A failure that prevents all further checks."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


def diagnose(settings: VaultSettings, policy: RotationPolicy) -> Iterator[Finding]:
    """Diagnose the Vault of ``settings``. Blocks; each call to Vault ends within the settings' timeouts.

    Logs in and signs once, as the service does, and revokes the token at the end.
    """
    with asyncio.Runner() as runner:
        try:
            yield from _diagnose_server(runner, settings, policy.clock_skew)
            yield from _diagnose_logged_in(runner, settings, policy)
        except _Blocked as blocked:
            yield blocked.finding
        except SignerError as error:
            yield failure(Check.ADDRESS, f"Vault answered before; now: {error}", "run this again")


def _diagnose_logged_in(
    runner: asyncio.Runner, settings: VaultSettings, policy: RotationPolicy
) -> Iterator[Finding]:
    connection = Connection(settings)
    login = Login(settings, connection)
    lease = None
    try:
        lease = runner.run(_log_in(login, settings))
        yield ok(Check.LOGIN, f"Vault accepts the login by {settings.auth}")
        for weakness in login.weaknesses:
            text = f"others can access the credential file: {weakness.text}"
            yield warning(Check.LOGIN, text, weakness.remedy)
        yield from _diagnose_token(runner, lease.client, settings)
        may_sign = True
        for finding in _diagnose_permissions(runner, lease, settings):
            may_sign = may_sign and finding.status is not Status.FAILURE
            yield finding
        yield from _diagnose_key(runner, lease.client, settings, policy.timing, may_sign=may_sign)
    finally:
        if lease is not None:
            with suppress(SignerError):
                runner.run(login.revoke(lease))
        runner.run(connection.aclose())


class _Health(Struct):
    initialized: bool
    sealed: bool
    standby: bool
    server_time_utc: int
    version: str = "unknown"


def _diagnose_server(runner: asyncio.Runner, settings: VaultSettings, clock_skew: int) -> Iterator[Finding]:
    """Diagnose the server; ``clock_skew`` is the configured tolerance in seconds.

    Raises:
        _Blocked: it does not serve.
    """
    before = time.time()
    health = runner.run(_health(settings))
    after = time.time()
    yield _address(settings)
    if not health.initialized:
        raise _Blocked(failure(Check.SEAL, "Vault is not initialised", "vault operator init"))
    if health.sealed:
        raise _Blocked(failure(Check.SEAL, "Vault is sealed", "vault operator unseal"))
    state = "standby, so it must forward to the active node" if health.standby else "active"
    yield ok(Check.SEAL, f"initialised, unsealed, {state}; version {health.version}")
    yield _clock(health.server_time_utc, before, after, clock_skew)


async def _health(settings: VaultSettings) -> _Health:
    # Only the root namespace has this endpoint.
    connection = Connection(msgspec.structs.replace(settings, namespace=None))
    curl = f"curl {settings.addr.rstrip('/')}/v1/sys/health"
    try:
        answer = await call(
            connection.client().sys.read_health_status,
            method="GET",
            standby_ok=True,
            performance_standby_code=200,
            dr_secondary_code=200,
            sealed_code=200,
            uninit_code=200,
        )
        return msgspec.convert(answer, _Health)
    except (SignerUnavailable, SignerMisconfigured) as error:
        remedies = {
            "tls": _remedy_of_tls(str(error)),
            "no-tls": _remedy_without_tls(settings.addr),
            "standby": "MACP_AUTH_VAULT_ADDR=<the active node, or a load balancer that finds it>",
        }
        remedy = remedies.get(
            error.reason, f"{curl} shows more; correct MACP_AUTH_VAULT_ADDR, or the network"
        )
        text = f"{error} ({settings.addr})" if error.reason == "unreachable" else str(error)
        raise _Blocked(failure(Check.ADDRESS, text, remedy)) from None
    except (SignerRefused, msgspec.ValidationError):
        remedy = f"{curl} shows the response; correct MACP_AUTH_VAULT_ADDR"
        raise _Blocked(failure(Check.ADDRESS, "the server there is not Vault", remedy)) from None
    finally:
        await connection.aclose()


def _remedy_of_tls(text: str) -> str:
    if "MACP_AUTH_VAULT_CLIENT_CERT" in text:
        return (
            "MACP_AUTH_VAULT_CLIENT_CERT=<the PEM file of a certificate that Vault's listener accepts>\n"
            "MACP_AUTH_VAULT_CLIENT_KEY=<the PEM file of its private key>"
        )
    if "MACP_AUTH_VAULT_TLS_SERVER_NAME" in text:
        return "MACP_AUTH_VAULT_TLS_SERVER_NAME=<a name that Vault's certificate has>"
    return "MACP_AUTH_VAULT_CACERT=<the PEM file of the CA of Vault's certificate>"


def _remedy_without_tls(addr: str) -> str:
    server = urlsplit(addr)
    if _is_loopback(server.hostname or ""):
        return f"MACP_AUTH_VAULT_ADDR=http://{server.netloc}"
    return "give Vault's listener a certificate (tls_cert_file, tls_key_file)"


def _address(settings: VaultSettings) -> Finding:
    addr = settings.addr
    if addr.startswith("https://"):
        presented = "" if settings.client_cert is None else "; a client certificate is presented"
        return ok(Check.ADDRESS, f"{addr} answers, and its certificate is accepted{presented}")
    if _is_loopback(urlsplit(addr).hostname or ""):
        return ok(Check.ADDRESS, f"{addr} answers, on loopback")
    return warning(
        Check.ADDRESS,
        f"{addr} answers without TLS: anyone on the network path can take the token and sign with it",
        f"MACP_AUTH_VAULT_ADDR=https://{urlsplit(addr).netloc}",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _clock(server: int, before: float, after: float, clock_skew: int) -> Finding:
    """Compare the clocks by their smallest possible difference: Vault's time is in whole seconds."""
    ahead, behind = before - (server + 1), server - after
    apart = max(ahead, behind, 0.0)
    if apart <= min(_CLOCK_NOTICE_SECONDS, clock_skew):
        return ok(Check.CLOCK, "this clock and Vault's agree within a second")
    side = "ahead of" if ahead > behind else "behind"
    text = f"this clock is {apart:.0f} s {side} Vault's; MACP_AUTH_CLOCK_SKEW_SECONDS is {clock_skew}"
    remedy = "synchronise the clocks of both machines (NTP); `timedatectl` shows whether this one is"
    return warning(Check.CLOCK, text, remedy) if apart <= clock_skew else failure(Check.CLOCK, text, remedy)


class _Token(Struct):
    policies: Sequence[str]
    ttl: int
    """Seconds; 0 if it never expires."""
    renewable: bool = False
    num_uses: int = 0
    """Remaining uses; 0 for unlimited."""
    period: int = 0
    explicit_max_ttl: int = 0
    orphan: bool = True


async def _log_in(login: Login, settings: VaultSettings) -> Lease:
    """Return the lease that the service would get.

    Raises:
        _Blocked: the login fails.
    """
    try:
        return await login.log_in()
    except SignerError as error:
        raise _Blocked(failure(Check.LOGIN, str(error), _remedy_of_login(error.reason, settings))) from None


def _remedy_of_login(reason: str, settings: VaultSettings) -> str:
    if reason == "credential-unreadable":
        return "give the service's user read access, and check that the file has been written"
    if reason == "not-found":
        return (
            "correct MACP_AUTH_VAULT_NAMESPACE or MACP_AUTH_VAULT_AUTH_MOUNT; "
            "`vault namespace list` and `vault auth list` show the valid values"
        )
    mount = settings.login_mount
    remedies = {
        AuthMethod.TOKEN: _NEW_TOKEN,
        AuthMethod.APPROLE: f"vault write -f auth/{mount}/role/<name of the role>/secret-id",
        AuthMethod.CERT: f"vault read auth/{mount}/certs/{settings.role or '<name of the role>'}",
    }
    return remedies.get(settings.auth, f"vault read auth/{mount}/role/{settings.role}")


def _diagnose_token(
    runner: asyncio.Runner, client: hvac.Client, settings: VaultSettings
) -> Iterator[Finding]:
    """Diagnose the token of ``client``.

    Raises:
        SignerUnavailable: no answer.
    """
    try:
        token = runner.run(_ask(_Token, client.auth.token.lookup_self))
    except TokenNotAccepted:
        text = "the token may not look itself up, so its lifetime is unknown"
        yield warning(Check.TOKEN, text, 'path "auth/token/lookup-self" { capabilities = ["read"] }')
        return
    faults = [found for found in (_power(token), _uses(token, settings), _end(token, settings)) if found]
    yield from faults or [ok(Check.TOKEN, _lifetime(token, settings))]


def _power(token: _Token) -> Finding | None:
    if "root" not in token.policies:
        return None
    text = "this is a root token: anyone who steals it controls all of Vault"
    return warning(Check.TOKEN, text, _NEW_TOKEN)


def _uses(token: _Token, settings: VaultSettings) -> Finding | None:
    if not token.num_uses:
        return None
    text = f"the token is valid for only {token.num_uses} more requests"
    if settings.auth is AuthMethod.TOKEN:
        return failure(Check.TOKEN, text, _NEW_TOKEN)
    return warning(Check.TOKEN, text, "in Vault, give the role token_num_uses=0")


def _end(token: _Token, settings: VaultSettings) -> Finding | None:
    """Report an expiry after which nothing provides a new token: no login, and no file."""
    if settings.auth is not AuthMethod.TOKEN or settings.token_file is not None or not token.ttl:
        return None
    if not token.renewable:
        return failure(Check.TOKEN, f"the token expires in {token.ttl} s, and can't be renewed", _NEW_TOKEN)
    ends = []
    if token.explicit_max_ttl:
        ends.append(f"{token.explicit_max_ttl} s after its creation (explicit_max_ttl)")
    elif not token.period:
        ends.append("at Vault's maximum TTL (32 days by default), because it has no period")
    if not token.orphan:
        ends.append("with its parent token, because it is not an orphan")
    return warning(Check.TOKEN, f"the token expires {', and '.join(ends)}", _NEW_TOKEN) if ends else None


def _lifetime(token: _Token, settings: VaultSettings) -> str:
    if not token.ttl:
        return "the token does not expire"
    if settings.auth is not AuthMethod.TOKEN:
        return f"the token lives {token.ttl} s; then the service logs in again"
    if not token.renewable:
        return f"the token lives {token.ttl} s; then the service reads its file again"
    return f"the token lives {token.ttl} s, and can be renewed"


def _diagnose_permissions(runner: asyncio.Runner, lease: Lease, settings: VaultSettings) -> Iterator[Finding]:
    """Diagnose the permissions of ``lease``.

    Raises:
        _Blocked: the key can't be read.
        SignerUnavailable: no answer.
    """
    mount, key = settings.mount, settings.key
    read, sign = f"{mount}/keys/{key}", f"{mount}/sign/{key}"
    needed = {read: "read", sign: "update"}
    if settings.auth is AuthMethod.TOKEN and lease.seconds and lease.renewable:
        needed[_RENEW] = "update"
    too_much = [
        (read, "delete", "delete it"),
        (f"{read}/soft-delete", "delete", "soft-delete it"),
        (f"{read}/config", "update", "make it exportable or deletable"),
        (f"{read}/rotate", "update", "rotate it"),
        (f"{mount}/export/signing-key/{key}", "read", "export it, if it is exportable"),
        (f"{mount}/backup/{key}", "read", "back it up, if that is allowed"),
    ]
    paths = list(dict.fromkeys([*needed, *(path for path, _, _ in too_much)]))
    try:
        held = runner.run(_ask(dict[str, set[str]], lease.client.sys.get_capabilities, paths))
    except TokenNotAccepted:
        text = "the token may not query its capabilities; the service's requests are tried instead"
        yield ok(Check.PERMISSIONS, text)
        return
    if any("root" in capabilities for capabilities in held.values()):
        yield ok(Check.PERMISSIONS, "the token may do everything")
        return
    if missing := {path: what for path, what in needed.items() if what not in held.get(path, set())}:
        if read in missing:
            raise _Blocked(_denied(missing))
        yield _denied(missing)
    if more := [power for path, what, power in too_much if what in held.get(path, set())]:
        yield warning(
            Check.PERMISSIONS,
            f"the token has more permissions than the service needs: {', '.join(more)}",
            f"its policies should grant only\n{_policy_lines({read: 'read', sign: 'update'})}",
        )
    if not missing and not more:
        yield ok(Check.PERMISSIONS, "the token has the permissions that the service needs, and no more")


def _denied(missing: Mapping[str, str]) -> Finding:
    return failure(
        Check.PERMISSIONS,
        f"the token may not {' or '.join(f'{what} {path}' for path, what in missing.items())}",
        f"one of its policies needs\n{_policy_lines(missing)}",
    )


class _Key(Struct):
    type: str
    min_encryption_version: int = 0
    exportable: bool = False
    allow_plaintext_backup: bool = False
    imported_key: bool = False
    deletion_allowed: bool = False
    soft_deleted: bool = False
    auto_rotate_period: int = 0
    """Seconds; 0 for never."""


def _diagnose_key(
    runner: asyncio.Runner, client: hvac.Client, settings: VaultSettings, timing: Timing, *, may_sign: bool
) -> Iterator[Finding]:
    """Diagnose the key of ``settings``, and sign with it if the token ``may_sign``.

    Raises:
        _Blocked: the key can't be used at all.
        SignerError: Vault does not return its versions.
    """
    path = f"{settings.mount}/keys/{settings.key}"
    key = runner.run(_read(client, settings, path))
    yield ok(Check.KEY, f"{path} is of type {key.type}, for {ALGORITHMS[key.type]}")
    yield _custody(key, settings)
    yield _deletion(key, path)
    yield _rotation(key, path, timing)
    transit = Transit(settings.mount, settings.key)
    found = runner.run(transit.read(client))
    yield _versions(key, found, path, timing)
    if may_sign:
        yield runner.run(_signature(transit, client, found, settings))


async def _read(client: hvac.Client, settings: VaultSettings, path: str) -> _Key:
    mount = settings.mount
    try:
        key = await _ask(_Key, client.secrets.transit.read_key, settings.key, mount_point=mount)
    except TokenNotAccepted:
        raise _Blocked(_denied({path: "read"})) from None
    except SignerRefused as error:
        if "no handler for route" in str(error):
            text, remedy = f"nothing is mounted at {mount}", f"vault secrets enable -path={mount} transit"
        else:
            text, remedy = f"there is no transit key {path}", f"vault write -f {path} type=ecdsa-p256"
        raise _Blocked(failure(Check.KEY, text, remedy)) from None
    if key.type not in ALGORITHMS:
        text = f"{path} is of type {key.type}, which the MACP runtime can't verify"
        raise _Blocked(failure(Check.KEY, text, _another_key(settings)))
    if key.soft_deleted:
        remedy = f"vault write -f {path}/soft-delete-restore"
        raise _Blocked(failure(Check.KEY, f"{path} is deleted, and can be restored", remedy))
    return key


def _another_key(settings: VaultSettings) -> str:
    """Return the remedy for a property of a key that can't be changed."""
    other = f"{settings.key}-2"
    return f"vault write -f {settings.mount}/keys/{other} type=ecdsa-p256\nMACP_AUTH_VAULT_KEY={other}"


def _custody(key: _Key, settings: VaultSettings) -> Finding:
    """Report whether the private key can leave Vault, or has been outside. Neither can be undone."""
    ways = []
    if key.exportable:
        ways.append("it is exportable")
    if key.allow_plaintext_backup:
        ways.append("it may be backed up in plain text")
    if ways:
        text = f"the private key can leave Vault: {', and '.join(ways)}"
        return failure(Check.CUSTODY, text, _another_key(settings))
    if key.imported_key:
        text = "the private key was imported, so it has been outside of Vault"
        return warning(Check.CUSTODY, text, _another_key(settings))
    return ok(Check.CUSTODY, "the private key was generated in Vault, and can't leave it")


def _deletion(key: _Key, path: str) -> Finding:
    if not key.deletion_allowed:
        return ok(Check.DELETION, "the key can't be deleted permanently")
    text = "the key may be deleted; verifiers would then reject every token of the service"
    return warning(Check.DELETION, text, f"vault write {path}/config deletion_allowed=false")


def _rotation(key: _Key, path: str, timing: Timing) -> Finding:
    if not key.auto_rotate_period:
        return ok(
            Check.ROTATION,
            f"Vault does not rotate the key itself; to rotate it: vault write -f {path}/rotate",
        )
    needed = timing.publish_lead + timing.retire_lag
    text = (
        f"Vault rotates the key every {key.auto_rotate_period} s; "
        f"the publish lead and the retire lag take {needed} s"
    )
    if key.auto_rotate_period >= needed:
        return ok(Check.ROTATION, text)
    return failure(
        Check.ROTATION, text, f"vault write {path}/config auto_rotate_period={-(-needed // _HOUR)}h"
    )


def _versions(key: _Key, found: TransitKey, path: str, timing: Timing) -> Finding:
    now = time.time()
    versions = found.published
    lacking = [version.kid for version in versions if version.kid in found.public_only]
    remedy_of_lacking = "\n".join(
        f"vault transit import-version {path} @<its private key, PKCS #8, base64> "
        f"version={found.versions[kid]}"
        for kid in lacking
    )
    try:
        actual = schedule(versions, timing, now)
    except SignerMisconfigured:
        if not lacking:
            raise
        text = f"no version can sign: {', '.join(lacking)} was imported without its private key"
        raise _Blocked(failure(Check.VERSIONS, text, remedy_of_lacking)) from None
    unrestricted = schedule(
        [structs.replace(each, can_sign=each.kid not in found.public_only) for each in versions], timing, now
    )
    if actual.signing.kid != unrestricted.signing.kid:
        return warning(
            Check.VERSIONS,
            f"{actual.signing.kid} signs before its publish lead is over: min_encryption_version is "
            f"{key.min_encryption_version}, so {unrestricted.signing.kid} can't",
            f"vault write {path}/config min_encryption_version=0",
        )
    if lacking:
        return warning(
            Check.VERSIONS,
            f"{', '.join(lacking)} is published but never signs: it was imported without its private key",
            remedy_of_lacking,
        )
    count = f"{len(versions)} version{'s' if len(versions) > 1 else ''}"
    return ok(Check.VERSIONS, f"{count}, {len(actual.keys)} published; {actual.signing.kid} signs")


async def _signature(
    transit: Transit, client: hvac.Client, found: TransitKey, settings: VaultSettings
) -> Finding:
    """Sign with the newest version that can; the active one is tested later, by the service's own code."""
    newest = next(version for version in reversed(found.published) if version.can_sign)
    begun = time.monotonic()
    try:
        [outcome] = await transit.sign(
            client, found.versions[newest.kid], [hashlib.sha256(_PROBE_INPUT).digest()]
        )
        if isinstance(outcome, Exception):
            raise outcome
    except TokenNotAccepted:
        return _denied({f"{settings.mount}/sign/{settings.key}": "update"})
    except SignerError as error:
        remedy = f"see {reason_of(error)!r} in docs/vault.md, What each fault looks like"
        return failure(Check.SIGNATURE, f"{newest.kid} does not sign: {error}", remedy)
    milliseconds = 1000 * (time.monotonic() - begun)
    public = jose.load(msgspec.to_builtins(newest.public_jwk))
    assert isinstance(public, jose.PublicKey)  # noqa: S101 - a PublicJWK has no private member
    if not jose.verifies(public, _PROBE_INPUT, outcome):
        text = f"the public key of {newest.kid} does not verify its signature"
        return failure(Check.SIGNATURE, text, _another_key(settings))
    return ok(Check.SIGNATURE, f"{newest.kid} signs, and its signature verifies; {milliseconds:.0f} ms")


async def _ask(expected: type[T], function: Callable[..., Any], *arguments: Any, **named: Any) -> T:
    """Return the data of Vault's answer, converted to ``expected``.

    Raises:
        SignerUnavailable: no answer, or not of this type.
        SignerRefused: Vault refuses the request.
    """
    answer = await call(function, *arguments, **named)
    try:
        return msgspec.convert(answer["data"], expected)
    except (TypeError, KeyError, msgspec.ValidationError):
        raise SignerUnavailable("Vault's answer can't be read", reason="bad-answer") from None


def _policy_lines(capabilities: Mapping[str, str]) -> str:
    """Return the lines of a policy that grants each capability."""
    return "\n".join(f'path "{path}" {{ capabilities = ["{what}"] }}' for path, what in capabilities.items())
