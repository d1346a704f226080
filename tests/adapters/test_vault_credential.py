"""The token of vault-transit, when logins and renewals go wrong, or come too late."""

from __future__ import annotations

import asyncio

import hvac
import pytest

from macp_auth.adapters.signers.vault_transit.credential import Credential, Lease
from macp_auth.domain.errors import SignerRefused
from tools.support.bounded import bounded


def lease_for(seconds: float) -> Lease:
    return Lease(client=hvac.Client(token="t"), seconds=seconds, renewable=True, revocable=True)


class Vault:
    """Gives leases of half a second; what it does next can be set."""

    def __init__(self) -> None:
        self.logins = self.renewals = 0
        self.on_login: Exception | None = None
        self.on_renewal: Exception | asyncio.Event | None = None
        self.credential = Credential(self._log_in, self._renew)

    async def _log_in(self) -> Lease:
        self.logins += 1
        await asyncio.sleep(0)
        if self.on_login is not None:
            raise self.on_login
        return lease_for(0.5)

    async def _renew(self, lease: Lease) -> Lease:
        self.renewals += 1
        trouble, self.on_renewal = self.on_renewal, None
        if isinstance(trouble, asyncio.Event):
            await trouble.wait()
        elif trouble is not None:
            raise trouble
        return lease

    async def renewed(self, times: int) -> None:
        while self.renewals < times:  # noqa: ASYNC110 - the credential has no event to tell
            await asyncio.sleep(0.01)


@bounded
async def test_renewing_goes_on_whatever_one_renewal_failed_of() -> None:
    """A gateway's page in the place of Vault's answer must not be an outage when the lease is over."""
    vault = Vault()
    await vault.credential.lease()
    vault.on_renewal = TypeError("'NoneType' object is not subscriptable")
    await vault.renewed(3)
    assert vault.credential.statistics()["credential_renewal_failures_total"] == 1
    assert vault.credential.seconds_left > 0
    assert vault.logins == 1
    await vault.credential.aclose()


@bounded
async def test_a_renewal_that_comes_late_does_not_bring_the_old_lease_back() -> None:
    """Meanwhile its token was revoked, and there is another one."""
    vault = Vault()
    old = await vault.credential.lease()
    vault.credential.mark_used(old, "sign")
    vault.on_renewal = late = asyncio.Event()
    await vault.renewed(1)
    new = await vault.credential.replacement_for(old, "sign")
    assert new is not None
    late.set()
    await vault.renewed(2)
    held = vault.credential.current
    assert held is not None
    assert held.client is new.client
    await vault.credential.aclose()


@bounded
async def test_a_refused_login_is_not_tried_for_everybody_who_asks() -> None:
    """Each would be a review of a service account's token, at the API server."""
    vault = Vault()
    vault.on_login = SignerRefused("no such role", reason="credential-refused")
    for _ in range(3):
        refused = await asyncio.gather(*(vault.credential.lease() for _ in range(50)), return_exceptions=True)
        assert {(str(each), getattr(each, "reason", None)) for each in refused} == {
            ("no such role", "credential-refused")
        }
    assert vault.logins == 1
    vault.on_login = None
    await asyncio.sleep(1.1)  # the pause
    assert (await vault.credential.lease()).seconds == 0.5
    await vault.credential.aclose()


@pytest.mark.parametrize("turns", range(4))
def test_closing_right_after_a_login_ends(turns: int) -> None:
    """A cancellation that comes as the new lease is noticed is not lost."""

    @bounded
    async def test() -> None:
        vault = Vault()
        await vault.credential.lease()
        for _ in range(turns):
            await asyncio.sleep(0)
        await vault.credential.aclose()

    test()
