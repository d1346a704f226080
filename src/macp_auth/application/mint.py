"""The use case that mints a token."""

from __future__ import annotations

from collections.abc import Callable

from macp_auth.application.access import Access
from macp_auth.application.key_ring import KeyRing
from macp_auth.domain.callers import Caller
from macp_auth.domain.claims import Claims
from macp_auth.domain.clock import TimeInterval
from macp_auth.domain.errors import ClockStepped
from macp_auth.domain.minting import MintedToken, TokenRequest
from macp_auth.domain.sender import SenderPolicy

ClaimsCheck = Callable[[Claims, str], None]
"""Raises InvalidRequest if no token with this kid may carry these claims."""


def any_claims(_claims: Claims, _kid: str) -> None:
    """Accept all claims."""


class Minter:
    """Mints the tokens of one issuer."""

    def __init__(
        self,
        *,
        issuer: str,
        senders: SenderPolicy,
        access: Access,
        keys: KeyRing,
        check_claims: ClaimsCheck = any_claims,
    ) -> None:
        self._issuer = issuer
        self._senders = senders
        self._access = access
        self._keys = keys
        self._check_claims = check_claims

    async def mint(
        self, request: TokenRequest, caller: Caller | None, now: Callable[[], TimeInterval]
    ) -> MintedToken:
        """Return a token for ``caller``, minted at the time that ``now`` returns.

        The order of the checks is part of the wire contract: sender, grant, scopes, lifetime, all claims
        together, size. The clock is read last: the answer to an invalid request must not be to try again.

        Raises:
            InvalidRequest: the request is invalid.
            CallerRefused: the caller may not have this token.
            ClockStepped: the clock is not trusted, or the token would expire at once by one of two clocks
                that disagree.
            SignerError: the request is valid, but the signer failed.
        """
        sender = self._senders.check(request.sender)
        permission = self._access.permit(request, sender, caller)
        moment = now()
        issued_at = int(moment.earliest)
        expires_at = issued_at + permission.ttl
        if expires_at <= moment.latest:
            raise ClockStepped(f"a token of {permission.ttl} s may expire at once")
        claims = Claims(
            macp_scopes=permission.scopes,
            sub=sender,
            iss=self._issuer,
            aud=permission.audience,
            iat=issued_at,
            exp=expires_at,
        )
        self._check_claims(claims, self._keys.keys.signing.version.kid)
        minted = await self._keys.sign(claims)
        if permission.grant is None:
            return minted
        return MintedToken(minted.token, minted.kid, claims, permission.grant)
