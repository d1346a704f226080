"""Examines a transit key: that it is there, fit to sign tokens, kept safe, and rotated slowly enough."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator

import hvac
import msgspec
from msgspec import Struct, structs

from macp_auth.adapters import jose
from macp_auth.adapters.signers.vault_transit.connection import TokenNotAccepted
from macp_auth.adapters.signers.vault_transit.doctor.checks import Blocked, Check, ask, policy_lines
from macp_auth.adapters.signers.vault_transit.settings import VaultSettings
from macp_auth.adapters.signers.vault_transit.transit import ALGORITHMS, Transit, TransitKey
from macp_auth.domain.diagnosis import Finding, failure, ok, warning
from macp_auth.domain.errors import SignerError, SignerMisconfigured, SignerRefused, reason_of
from macp_auth.domain.rotation import Timing, schedule

_HOUR = 3600
_PROBE_INPUT = b"macp-auth doctor"  # without a dot, so no signature of it can ever make a token


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


async def diagnose_key(
    client: hvac.Client, settings: VaultSettings, timing: Timing, *, may_sign: bool
) -> AsyncIterator[Finding]:
    """Examine the key of ``settings``, and have it sign if the token ``may_sign``.

    Raises:
        Blocked: nothing more can be asked of the key.
        SignerError: Vault does not give its versions.
    """
    path = f"{settings.mount}/keys/{settings.key}"
    key = await _read(client, settings, path)
    yield ok(Check.KEY, f"{path} is of type {key.type}, for {ALGORITHMS[key.type]}")
    yield _custody(key, settings)
    yield _deletion(key, path)
    yield _rotation(key, path, timing)
    transit = Transit(settings.mount, settings.key)
    found = await transit.read(client)
    yield _versions(key, found, path, timing)
    if may_sign:
        yield await _signature(transit, client, found, settings)


async def _read(client: hvac.Client, settings: VaultSettings, path: str) -> _Key:
    mount = settings.mount
    try:
        key = await ask(_Key, client.secrets.transit.read_key, settings.key, mount_point=mount)
    except TokenNotAccepted:
        raise Blocked(_denied(path, "read")) from None
    except SignerRefused as error:
        if "no handler for route" in str(error):
            text, remedy = f"nothing is mounted at {mount}", f"vault secrets enable -path={mount} transit"
        else:
            text, remedy = f"there is no transit key {path}", f"vault write -f {path} type=ecdsa-p256"
        raise Blocked(failure(Check.KEY, text, remedy)) from None
    if key.type not in ALGORITHMS:
        text = f"{path} is of type {key.type}, which the MACP runtime can't verify"
        raise Blocked(failure(Check.KEY, text, _another_key(settings)))
    if key.soft_deleted:
        remedy = f"vault write -f {path}/soft-delete-restore"
        raise Blocked(failure(Check.KEY, f"{path} is deleted, and can be restored", remedy))
    return key


def _denied(path: str, what: str) -> Finding:
    remedy = f"one of its policies needs\n{policy_lines({path: what})}"
    return failure(Check.PERMISSIONS, f"the token may not {what} {path}", remedy)


def _another_key(settings: VaultSettings) -> str:
    """Return the remedy for what can't be changed about a key."""
    other = f"{settings.key}-2"
    return f"vault write -f {settings.mount}/keys/{other} type=ecdsa-p256\nMACP_AUTH_VAULT_KEY={other}"


def _custody(key: _Key, settings: VaultSettings) -> Finding:
    """Say whether the private key can leave Vault, or has been outside. Neither can be undone."""
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
    return ok(Check.CUSTODY, "the private key was made in Vault, and can't leave it")


def _deletion(key: _Key, path: str) -> Finding:
    if not key.deletion_allowed:
        return ok(Check.DELETION, "the key can't be deleted for good")
    text = "the key may be deleted, and with it every token of the service would stop verifying"
    return warning(Check.DELETION, text, f"vault write {path}/config deletion_allowed=false")


def _rotation(key: _Key, path: str, timing: Timing) -> Finding:
    if not key.auto_rotate_period:
        return ok(
            Check.ROTATION, f"Vault does not rotate the key by itself; vault write -f {path}/rotate does"
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
    mend_of_lacking = "\n".join(
        f"vault transit import-version {path} @<its private key, PKCS #8, base64> "
        f"version={found.versions[kid]}"
        for kid in lacking
    )
    try:
        in_force = schedule(versions, timing, now)
    except SignerMisconfigured:
        if not lacking:
            raise
        text = f"no version can sign: {', '.join(lacking)} was imported without its private half"
        raise Blocked(failure(Check.VERSIONS, text, mend_of_lacking)) from None
    free = schedule(
        [structs.replace(each, can_sign=each.kid not in found.public_only) for each in versions], timing, now
    )
    if in_force.signing.kid != free.signing.kid:
        return warning(
            Check.VERSIONS,
            f"{in_force.signing.kid} signs before its publish lead is over: min_encryption_version is "
            f"{key.min_encryption_version}, so {free.signing.kid} can't",
            f"vault write {path}/config min_encryption_version=0",
        )
    if lacking:
        return warning(
            Check.VERSIONS,
            f"{', '.join(lacking)} is published and never signs: it was imported without its private half",
            mend_of_lacking,
        )
    count = f"{len(versions)} version{'s' if len(versions) > 1 else ''}"
    return ok(Check.VERSIONS, f"{count}, {len(in_force.keys)} published; {in_force.signing.kid} signs")


async def _signature(
    transit: Transit, client: hvac.Client, found: TransitKey, settings: VaultSettings
) -> Finding:
    """Try the newest version that can: the one in force is tried as the service does it."""
    newest = next(version for version in reversed(found.published) if version.can_sign)
    begun = time.monotonic()
    try:
        [outcome] = await transit.sign(
            client, found.versions[newest.kid], [hashlib.sha256(_PROBE_INPUT).digest()]
        )
        if isinstance(outcome, Exception):
            raise outcome
    except TokenNotAccepted:
        return _denied(f"{settings.mount}/sign/{settings.key}", "update")
    except SignerError as error:
        remedy = f"docs/vault.md, What each fault looks like, says what to do for {reason_of(error)!r}"
        return failure(Check.SIGNATURE, f"{newest.kid} does not sign: {error}", remedy)
    milliseconds = 1000 * (time.monotonic() - begun)
    public = jose.load(msgspec.to_builtins(newest.public_jwk))
    assert isinstance(public, jose.PublicKey)  # noqa: S101 - a PublicJWK has no private member
    if not jose.verifies(public, _PROBE_INPUT, outcome):
        text = f"the public key of {newest.kid} does not verify its signature"
        return failure(Check.SIGNATURE, text, _another_key(settings))
    return ok(Check.SIGNATURE, f"{newest.kid} signs, and verifies; {milliseconds:.0f} ms")
