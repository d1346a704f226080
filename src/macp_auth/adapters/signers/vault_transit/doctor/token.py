"""Examines the token: that there is one, that it will last, and that it is no root token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import hvac
from msgspec import Struct

from macp_auth.adapters.signers.vault_transit.connection import TokenNotAccepted
from macp_auth.adapters.signers.vault_transit.doctor.checks import Blocked, Check, ask
from macp_auth.adapters.signers.vault_transit.login import Lease, Login
from macp_auth.adapters.signers.vault_transit.settings import AuthMethod, VaultSettings
from macp_auth.domain.diagnosis import Finding, failure, ok, warning
from macp_auth.domain.errors import SignerError

_NEW_TOKEN = "vault token create -orphan -policy=macp-auth -period=24h"  # noqa: S105 - a command


class _Token(Struct):
    policies: Sequence[str]
    ttl: int
    """Seconds; 0 if it never expires."""
    renewable: bool = False
    num_uses: int = 0
    """How many are left; 0 for any number."""
    period: int = 0
    explicit_max_ttl: int = 0
    orphan: bool = True


async def log_in(login: Login, settings: VaultSettings) -> Lease:
    """Return the lease that the service would get.

    Raises:
        Blocked: there is none.
    """
    try:
        return await login.log_in()
    except SignerError as error:
        raise Blocked(failure(Check.LOGIN, str(error), _mend_of_login(error.reason, settings))) from None


def _mend_of_login(reason: str, settings: VaultSettings) -> str:
    if reason == "credential-unreadable":
        return "let the user of the service read the file; see that what writes it has written it"
    if reason == "not-found":
        return (
            "fix MACP_AUTH_VAULT_NAMESPACE, or MACP_AUTH_VAULT_AUTH_MOUNT; "
            "`vault namespace list` and `vault auth list` show what there is"
        )
    mount = settings.login_mount
    remedies = {
        AuthMethod.TOKEN: _NEW_TOKEN,
        AuthMethod.APPROLE: f"vault write -f auth/{mount}/role/<name of the role>/secret-id",
        AuthMethod.CERT: f"vault read auth/{mount}/certs/{settings.role or '<name of the role>'}",
    }
    return remedies.get(settings.auth, f"vault read auth/{mount}/role/{settings.role}")


async def diagnose_token(client: hvac.Client, settings: VaultSettings) -> AsyncIterator[Finding]:
    """Examine the token that ``client`` presents.

    Raises:
        SignerUnavailable: no answer.
    """
    try:
        token = await ask(_Token, client.auth.token.lookup_self)
    except TokenNotAccepted:
        text = "Vault does not let the token look itself up, so nothing is known of it"
        yield warning(Check.TOKEN, text, 'path "auth/token/lookup-self" { capabilities = ["read"] }')
        return
    examined = (_power(token), _uses(token, settings), _end(token, settings))
    for finding in [found for found in examined if found] or [ok(Check.TOKEN, _lifetime(token, settings))]:
        yield finding


def _power(token: _Token) -> Finding | None:
    if "root" not in token.policies:
        return None
    text = "this is a root token: whoever takes it from the service has all of Vault"
    return warning(Check.TOKEN, text, _NEW_TOKEN)


def _uses(token: _Token, settings: VaultSettings) -> Finding | None:
    if not token.num_uses:
        return None
    text = f"the token is good for {token.num_uses} more requests only"
    if settings.auth is AuthMethod.TOKEN:
        return failure(Check.TOKEN, text, _NEW_TOKEN)
    return warning(Check.TOKEN, text, "in Vault, give the role token_num_uses=0")


def _end(token: _Token, settings: VaultSettings) -> Finding | None:
    """Tell of an end after which nobody has another token: no login, and no writer of a file."""
    if settings.auth is not AuthMethod.TOKEN or settings.token_file is not None or not token.ttl:
        return None
    if not token.renewable:
        return failure(Check.TOKEN, f"the token ends in {token.ttl} s, and can't be renewed", _NEW_TOKEN)
    ends = []
    if token.explicit_max_ttl:
        ends.append(f"{token.explicit_max_ttl} s after it was made, its explicit maximum")
    elif not token.period:
        ends.append("at the longest lifetime that Vault allows (32 days by default), as it has no period")
    if not token.orphan:
        ends.append("with the token that it was made by, as it is no orphan")
    return warning(Check.TOKEN, f"the token ends {', and '.join(ends)}", _NEW_TOKEN) if ends else None


def _lifetime(token: _Token, settings: VaultSettings) -> str:
    if not token.ttl:
        return "the token does not expire"
    if settings.auth is not AuthMethod.TOKEN:
        return f"the token lives {token.ttl} s; then the service logs in again"
    if not token.renewable:
        return f"the token lives {token.ttl} s; then the service reads its file again"
    return f"the token lives {token.ttl} s, and can be renewed"
