"""Examines Vault before a deployment goes live: the server, the token and its permissions, and the key.

Checks are made in the order in which they depend on each other; one that leaves nothing to ask is the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

from macp_auth.adapters.signers.vault_transit.connection import Connection
from macp_auth.adapters.signers.vault_transit.doctor.checks import Blocked, Check
from macp_auth.adapters.signers.vault_transit.doctor.key import diagnose_key
from macp_auth.adapters.signers.vault_transit.doctor.permissions import diagnose_permissions
from macp_auth.adapters.signers.vault_transit.doctor.server import diagnose_server
from macp_auth.adapters.signers.vault_transit.doctor.token import diagnose_token, log_in
from macp_auth.adapters.signers.vault_transit.login import Login
from macp_auth.adapters.signers.vault_transit.settings import VaultSettings
from macp_auth.domain.diagnosis import Finding, Status, failure, ok, warning
from macp_auth.domain.errors import SignerError
from macp_auth.domain.policy import RotationPolicy

__all__ = ["Check", "diagnose"]


def diagnose(settings: VaultSettings, policy: RotationPolicy) -> Iterator[Finding]:
    """Examine what ``settings`` lead to. Blocks; each call to Vault ends within the settings' timeouts.

    It logs in and signs once, as the service does, and gives the token back at the end.
    """
    findings = _diagnose(settings, policy)
    with asyncio.Runner() as runner:
        while (finding := runner.run(_next(findings))) is not None:
            yield finding


async def _next(findings: AsyncIterator[Finding]) -> Finding | None:
    return await anext(findings, None)


async def _diagnose(settings: VaultSettings, policy: RotationPolicy) -> AsyncIterator[Finding]:
    try:
        async for finding in diagnose_server(settings, policy.clock_skew):
            yield finding
        async for finding in _diagnose_logged_in(settings, policy):
            yield finding
    except Blocked as blocked:
        yield blocked.finding
    except SignerError as error:
        yield failure(Check.ADDRESS, f"Vault answered before, and now: {error}", "run this again")


async def _diagnose_logged_in(settings: VaultSettings, policy: RotationPolicy) -> AsyncIterator[Finding]:
    connection = Connection(settings)
    login = Login(settings, connection)
    lease = None
    try:
        lease = await log_in(login, settings)
        yield ok(Check.LOGIN, f"Vault accepts the login by {settings.auth}")
        for weakness in login.weaknesses:
            text = f"others can get at the file of the credential: {weakness.text}"
            yield warning(Check.LOGIN, text, weakness.remedy)
        async for finding in diagnose_token(lease.client, settings):
            yield finding
        may_sign = True
        async for finding in diagnose_permissions(lease, settings):
            may_sign = may_sign and finding.status is not Status.FAILURE
            yield finding
        async for finding in diagnose_key(lease.client, settings, policy.timing, may_sign=may_sign):
            yield finding
    finally:
        if lease is not None:
            with suppress(SignerError):
                await login.give_back(lease)
        await connection.aclose()
