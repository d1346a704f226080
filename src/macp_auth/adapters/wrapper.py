"""The base class of signers that wrap another signer."""

from __future__ import annotations

from collections.abc import Sequence

from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.signer import Signer
from macp_auth.domain.statistics import Statistics


class SignerWrapper(Signer):
    """Passes all calls to the wrapped signer; subclasses override some."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return the wrapped signer's versions."""
        return await self._signer.key_versions()

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the wrapped signer's signature."""
        return await self._signer.sign(kid, signing_input)

    async def aclose(self) -> None:
        """Close the wrapped signer."""
        await self._signer.aclose()

    def statistics(self) -> Statistics:
        """Return the wrapped signer's numbers; a subclass adds its own."""
        return self._signer.statistics()
