"""How the service keeps a signer that is not its own code: one wrapper a rule.

From the plugin outwards: its exceptions become errors of the domain and name it; it works on an event
loop of its own; only so many calls are under way; each ends in time; a backend that keeps failing is
left alone for a while; and what it publishes and signs is checked before it is believed.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from macp_auth.adapters.sandbox.bulkhead import BulkheadSigner
from macp_auth.adapters.sandbox.circuit import CircuitBreaker
from macp_auth.adapters.sandbox.deadline import DeadlineSigner
from macp_auth.adapters.sandbox.isolation import IsolatedSigner
from macp_auth.adapters.sandbox.preparation import prepare_state
from macp_auth.adapters.sandbox.translation import TranslatingSigner
from macp_auth.adapters.verifying import VerifyingSigner
from macp_auth.domain.signer import Signer

__all__ = ["SIGN_SECONDS", "Limits", "host", "prepare_state"]

SIGN_SECONDS = 2.0
"""The most that a signature may take; whoever waits for a token has usually given up after a few seconds."""


class Limits(Struct, frozen=True, kw_only=True):
    """What a hosted signer may take."""

    sign_seconds: float = SIGN_SECONDS
    read_seconds: float = 10.0
    """For reading the keys: no request waits for that, and a backend may have many versions to tell."""
    close_seconds: float = 2.0
    """Less than the service's own stop may take."""
    concurrent_signs: int = 128
    """At 2 s each that is 64 signatures a second from a backend that almost hangs; others give more."""
    failures: int = 5
    """In a row; one or two happen when a backend's leader changes."""
    open_seconds: float = 2.0
    """So that, with the deadline, a backend that is back signs within 5 s."""


def sandboxed(opening: Callable[[], Signer], name: str, limits: Limits | None = None) -> Signer:
    """Return the signer that ``opening`` makes, behind every rule of hosting.

    Args:
        opening: makes the signer, at the first call.
        name: what messages and log lines call it.
        limits: what it may take.
    """
    limits = limits or Limits()
    signer: Signer = TranslatingSigner(opening, name)
    signer = IsolatedSigner(signer, name)
    signer = BulkheadSigner(signer, name, limits.concurrent_signs)
    signer = DeadlineSigner(
        signer,
        name,
        sign_seconds=limits.sign_seconds,
        read_seconds=limits.read_seconds,
        close_seconds=limits.close_seconds,
    )
    signer = CircuitBreaker(signer, name, failures=limits.failures, open_seconds=limits.open_seconds)
    return VerifyingSigner(signer, name)
