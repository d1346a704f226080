"""How the service keeps a signer that is not its own code: one wrapper a rule.

From the plugin outwards: its exceptions become errors of the domain and name it; it works on an event
loop of its own; only so many calls are under way; each ends in time; a backend that keeps failing is
left alone for a while; and what it publishes and signs is checked before it is believed.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from macp_auth.adapters.hookspecs import SignerPlugin
from macp_auth.adapters.sandbox.bulkhead import BulkheadSigner
from macp_auth.adapters.sandbox.circuit import CircuitBreaker
from macp_auth.adapters.sandbox.deadline import DeadlineSigner
from macp_auth.adapters.sandbox.isolation import IsolatedSigner
from macp_auth.adapters.sandbox.translation import TranslatingSigner, place_of
from macp_auth.adapters.verifying import VerifyingSigner
from macp_auth.domain.errors import SignerError, SignerMisconfigured
from macp_auth.domain.signer import Signer

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


def prepare_state(plugin: SignerPlugin, settings: Struct) -> Any:
    """Return what ``plugin`` prepares from ``settings``, which worker processes are handed.

    Raises:
        SignerMisconfigured: it can't, or what it prepares can't travel; the text names the plugin.
    """
    try:
        state = plugin.prepare(settings)
    except (SignerMisconfigured, KeyboardInterrupt):  # this is the main thread, so Ctrl-C is the operator's
        raise
    except SignerError as error:
        raise SignerMisconfigured(f"the signer plugin {plugin.name!r} can't prepare: {error}") from error
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything; its message may hold a secret
        raise SignerMisconfigured(
            f"the signer plugin {plugin.name!r} raised {type(error).__name__} in prepare{place_of(error)}; "
            "check its settings, or fix its package"
        ) from None
    try:
        pickle.dumps(state)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - pickle raises whatever an object's methods raise
        raise SignerMisconfigured(
            f"what the signer plugin {plugin.name!r} prepares can't be handed to a worker process "
            f"({type(error).__name__}); its package must return what can be pickled"
        ) from None
    return state
