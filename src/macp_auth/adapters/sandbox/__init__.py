"""Isolates the service from a signer plugin: one wrapper for each rule.

From the inside out: exceptions become domain errors that name the plugin; the plugin runs on its own
event loop; the number of concurrent calls is limited; each call has a deadline; a circuit breaker stops
calls to a failing backend; and keys and signatures are verified.
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
"""The deadline of a signature; callers usually give up after a few seconds."""


class Limits(Struct, frozen=True, kw_only=True):
    """The limits for a plugin."""

    sign_seconds: float = SIGN_SECONDS
    read_seconds: float = 10.0
    """For reading the keys: no request waits for that, and a backend may have many versions."""
    close_seconds: float = 2.0
    """Less than the time that the service has to stop."""
    concurrent_signs: int = 128
    """At 2 s each, a backend that almost hangs gives 64 signatures a second; others give more."""
    failures: int = 5
    """Consecutive failures; one or two happen when a backend's leader changes."""
    open_seconds: float = 2.0
    """With the deadline, a recovered backend signs within 5 s."""


def sandboxed(opening: Callable[[], Signer], name: str, limits: Limits | None = None) -> Signer:
    """Return the signer that ``opening`` creates, inside all wrappers.

    Args:
        opening: creates the signer, at the first call.
        name: its name in messages and logs.
        limits: its limits.
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
    """Return the state that ``plugin`` prepares from ``settings`` for the worker processes.

    Raises:
        SignerMisconfigured: it failed, or its state can't be pickled; the text names the plugin.
    """
    try:
        state = plugin.prepare(settings)
    except (SignerMisconfigured, KeyboardInterrupt):  # Ctrl-C: this is the main thread
        raise
    except SignerError as error:
        raise SignerMisconfigured(f"the signer plugin {plugin.name!r} failed to prepare: {error}") from error
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
            f"cannot pass the state of the signer plugin {plugin.name!r} to a worker process "
            f"({type(error).__name__}); prepare() must return an object that can be pickled"
        ) from None
    return state
