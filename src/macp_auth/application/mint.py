"""The use case that mints a token."""

from __future__ import annotations

from collections.abc import Callable

from macp_auth.application.key_ring import KeyRing
from macp_auth.domain.claims import Claims
from macp_auth.domain.clock import TimeInterval
from macp_auth.domain.errors import ClockStepped
from macp_auth.domain.minting import MintedToken, TokenRequest
from macp_auth.domain.scopes import check_scopes
from macp_auth.domain.sender import SenderPolicy
from macp_auth.domain.ttl import TTLPolicy

ClaimsCheck = Callable[[Claims, str], None]
"""Raises InvalidRequest if no token with this kid may carry these claims."""


def any_claims(_claims: Claims, _kid: str) -> None:
    """Accept all claims."""


class Minter:
    """Mints tokens for one issuer and audience."""

    def __init__(  # noqa: PLR0913 - all are needed
        self,
        *,
        issuer: str,
        audience: str,
        senders: SenderPolicy,
        ttl: TTLPolicy,
        keys: KeyRing,
        check_claims: ClaimsCheck = any_claims,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._senders = senders
        self._ttl = ttl
        self._keys = keys
        self._check_claims = check_claims

    async def mint(self, request: TokenRequest, now: Callable[[], TimeInterval]) -> MintedToken:
        """Return a token minted at the time that ``now`` returns.

        The order of the checks is part of the wire contract: sender, scopes, TTL, all claims together,
        size. The clock is read last: the answer to an invalid request must not be to try again.

        Raises:
            InvalidRequest: the request is invalid.
            ClockStepped: the clock is not trusted, or the token would expire at once by one of two clocks
                that disagree.
            SignerError: the request is valid, but the signer failed.
        """
        sender = self._senders.check(request.sender)
        scopes = check_scopes(request.scopes)
        ttl = self._ttl.resolve(request.ttl_seconds)
        moment = now()
        issued_at = int(moment.earliest)
        if issued_at + ttl <= moment.latest:
            raise ClockStepped(f"a token of {ttl} s may expire at once")
        claims = Claims(
            macp_scopes=scopes,
            sub=sender,
            iss=self._issuer,
            aud=self._audience,
            iat=issued_at,
            exp=issued_at + ttl,
        )
        self._check_claims(claims, self._keys.keys.signing.version.kid)
        return await self._keys.sign(claims)
