"""Examines what the token may do: what the service needs, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator

from macp_auth.adapters.signers.vault_transit.connection import TokenNotAccepted
from macp_auth.adapters.signers.vault_transit.doctor.checks import Blocked, Check, ask, policy_lines
from macp_auth.adapters.signers.vault_transit.login import Lease
from macp_auth.adapters.signers.vault_transit.settings import AuthMethod, VaultSettings
from macp_auth.domain.diagnosis import Finding, failure, ok, warning

_RENEW = "auth/token/renew-self"


async def diagnose_permissions(lease: Lease, settings: VaultSettings) -> AsyncIterator[Finding]:
    """Examine the permissions of ``lease``.

    Raises:
        Blocked: the key can't be read.
        SignerUnavailable: no answer.
    """
    mount, key = settings.mount, settings.key
    read, sign = f"{mount}/keys/{key}", f"{mount}/sign/{key}"
    needed = {read: "read", sign: "update"}
    if settings.auth is AuthMethod.TOKEN and lease.seconds and lease.renewable:
        needed[_RENEW] = "update"
    too_much = [
        (read, "delete", "delete it"),
        (f"{read}/soft-delete", "delete", "delete it for a while"),
        (f"{read}/config", "update", "make it exportable or deletable"),
        (f"{read}/rotate", "update", "rotate it"),
        (f"{mount}/export/signing-key/{key}", "read", "export it, where that is allowed"),
        (f"{mount}/backup/{key}", "read", "back it up, where that is allowed"),
    ]
    paths = list(dict.fromkeys([*needed, *(path for path, _, _ in too_much)]))
    try:
        held = await ask(dict[str, set[str]], lease.client.sys.get_capabilities, paths)
    except TokenNotAccepted:
        text = "Vault does not let the token ask what it may do; what the service needs is tried"
        yield ok(Check.PERMISSIONS, text)
        return
    if any("root" in capabilities for capabilities in held.values()):
        yield ok(Check.PERMISSIONS, "the token may do everything")
        return
    missing = {path: what for path, what in needed.items() if what not in held.get(path, set())}
    if missing:
        yield _lacking(missing, read)
    if more := [power for path, what, power in too_much if what in held.get(path, set())]:
        yield warning(
            Check.PERMISSIONS,
            f"the token may do more with the key than the service needs: {', '.join(more)}",
            f"its policies should give no more than\n{policy_lines({read: 'read', sign: 'update'})}",
        )
    if not missing and not more:
        yield ok(Check.PERMISSIONS, "the token may do what the service needs with the key, and no more")


def _lacking(missing: dict[str, str], read: str) -> Finding:
    finding = failure(
        Check.PERMISSIONS,
        f"the token may not {' or '.join(f'{what} {path}' for path, what in missing.items())}",
        f"one of its policies needs\n{policy_lines(missing)}",
    )
    if read in missing:
        raise Blocked(finding)
    return finding
