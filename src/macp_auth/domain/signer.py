"""The port that every key backend implements.

A signer says which key versions it has, and signs bytes with one of them. Headers, claims, which
version signs and which are published: none of that is a signer's business. Three operations keep a
backend small enough to be read in one sitting, and make one conformance suite possible for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from macp_auth.domain.keys import KeyVersion
from macp_auth.domain.statistics import Statistics


class Signer(ABC):
    """A key backend, opened. Used from one event loop, by many tasks at once.

    Only the errors of :mod:`macp_auth.domain.errors` may leave it: an adapter translates its
    vendor's exceptions at its edge.
    """

    @abstractmethod
    async def key_versions(self) -> Sequence[KeyVersion]:
        """Return every key version that the backend offers now; kids are unique.

        Times decide which one signs. Where they decide nothing (versions without any, or with the
        same), the first that can sign does: a backend that knows no times must list its newest first.

        Raises:
            SignerUnavailable: the backend can't be asked now; asking again may help.
            SignerRefused: the backend will not say.
        """

    @abstractmethod
    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the raw JWS signature of ``signing_input`` by exactly the version ``kid``.

        RS256: RSASSA-PKCS1-v1_5, as long as the modulus. ES256: 64 bytes, R then S (RFC 7518,
        section 3.4), never DER.

        Raises:
            UnknownKid: there is no such version, or it can't sign.
            SignerUnavailable: no signature now; asking again may help.
            SignerRefused: the backend will not sign.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of the backend. May be called more than once."""

    def statistics(self) -> Statistics:
        """Return numbers about the backend, for whoever watches the service; by default none.

        It is asked once a second while metrics are on, and must return at once.
        """
        return {}
