"""A minter with a key of its own, for tests of when and for how long tokens are made."""

from __future__ import annotations

import asyncio
from functools import cache

from msgspec import Struct

from macp_auth.adapters.jose import generate
from macp_auth.adapters.signers.ephemeral import KID
from macp_auth.adapters.signers.local import LocalKey, LocalSigner
from macp_auth.application.access import OpenAccess
from macp_auth.application.key_ring import KeyRing
from macp_auth.application.mint import Minter
from macp_auth.domain.clock import TimeInterval
from macp_auth.domain.keys import Algorithm
from macp_auth.domain.minting import MintedToken, TokenRequest
from macp_auth.domain.rotation import Timing
from macp_auth.domain.sender import SenderPolicy
from macp_auth.domain.ttl import TTLPolicy


class Desk(Struct, frozen=True):
    minter: Minter
    ttl: int

    async def issue(self, now: TimeInterval) -> MintedToken:
        return await self.minter.mint(
            TokenRequest(sender="a", scopes={}, ttl_seconds=self.ttl), None, lambda: now
        )


def minter_over(ttl: int) -> Desk:
    """What issues tokens that live for ``ttl`` seconds."""
    return Desk(_minter(), ttl)


@cache
def _minter() -> Minter:
    keys = KeyRing(
        LocalSigner([LocalKey.signing(KID, generate(Algorithm.ES256))]), Timing(publish_lead=1, retire_lag=1)
    )
    asyncio.run(keys.refresh(0))
    access = OpenAccess("a", TTLPolicy(300, 3600))
    return Minter(issuer="i", senders=SenderPolicy(None), access=access, keys=keys)
