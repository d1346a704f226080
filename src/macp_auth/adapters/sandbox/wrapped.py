"""A signer of a process, inside all wrappers."""

from __future__ import annotations

from macp_auth.adapters.sandbox.circuit import CircuitBreaker
from macp_auth.adapters.sandbox.hosted import HostedSigner, Opening
from macp_auth.adapters.sandbox.limits import Limits
from macp_auth.adapters.verifying import VerifyingSigner
from macp_auth.domain.signer import Signer


def sandboxed(signer: Signer, name: str, limits: Limits) -> Signer:
    """Return ``signer`` inside all wrappers.

    Args:
        signer: the signer of a process.
        name: its name in messages and logs.
        limits: its limits.
    """
    signer = CircuitBreaker(signer, name, failures=limits.failures, open_seconds=limits.open_seconds)
    return VerifyingSigner(signer, name)


def hosted(opening: Opening, sign_seconds: float) -> Signer:
    """Return the signer of a process, inside all wrappers.

    Args:
        opening: how the process opens it.
        sign_seconds: the deadline that it declares.
    """
    limits = Limits(sign_seconds=sign_seconds)
    return sandboxed(HostedSigner(opening, limits), opening.launch.name, limits)
