"""Limits concurrent signatures, so that a hanging signer does not collect calls without bound."""

from __future__ import annotations

from macp_auth.adapters.wrapper import SignerWrapper
from macp_auth.domain.errors import SignerUnavailable
from macp_auth.domain.signer import Signer
from macp_auth.domain.statistics import Statistics


class SignerBusy(SignerUnavailable):
    """The limit of concurrent calls is reached. This says nothing about the backend."""

    default_reason = "busy"


class BulkheadSigner(SignerWrapper):
    """Allows ``limit`` concurrent signatures and rejects the next at once.

    It does not queue: a queue in front of a slow backend only delays its callers. Reading the keys is not
    counted: it is one call at a time, and must work when signing does not.
    """

    def __init__(self, signer: Signer, name: str, limit: int) -> None:
        super().__init__(signer)
        self._name = name
        self._limit = limit
        self._under_way = 0

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the wrapped signer's signature.

        Raises:
            SignerBusy: the limit is reached.
        """
        if self._under_way >= self._limit:
            raise SignerBusy(f"the signer {self._name!r} is busy: {self._limit} concurrent signatures")
        self._under_way += 1
        try:
            return await super().sign(kid, signing_input)
        finally:
            self._under_way -= 1

    def statistics(self) -> Statistics:
        """Return the wrapped signer's numbers and the number of concurrent signatures."""
        return {**super().statistics(), "signatures_in_flight": self._under_way}
