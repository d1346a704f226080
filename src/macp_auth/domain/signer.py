"""The port that every key backend implements.

A signer lists its key versions and signs bytes with one of them. It does not handle headers or claims,
and does not choose which version signs or is published. With three operations, a backend stays small
and one conformance suite serves all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.statistics import Statistics


class Signer(ABC):
    """An open key backend. Used from one event loop, by many tasks at once.

    It may raise only the errors of :mod:`macp_auth.domain.errors`: an adapter translates the exceptions
    of its vendor's library.
    """

    @abstractmethod
    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return all current key versions; kids are unique.

        Their times decide which one signs. If the times are missing or equal, the first that can sign
        does: a backend without times must list the newest version first.

        Raises:
            SignerUnavailable: the backend is unreachable; a retry may help.
            SignerRefused: the backend refused.
        """

    @abstractmethod
    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the raw JWS signature of ``signing_input`` by exactly the version ``kid``.

        RS256: RSASSA-PKCS1-v1_5, as long as the modulus. ES256: 64 bytes, R then S (RFC 7518,
        section 3.4), never DER.

        Raises:
            UnknownKid: there is no such version, or it can't sign.
            SignerUnavailable: no signature now; a retry may help.
            SignerRefused: the backend refused.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close the backend. May be called more than once."""

    def statistics(self) -> Statistics:
        """Return numbers about the backend for the metrics; by default none.

        Called once a second while metrics are on; must return at once.
        """
        return {}
