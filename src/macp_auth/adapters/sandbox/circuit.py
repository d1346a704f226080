"""A circuit breaker: after repeated failures, calls fail at once without asking the backend.

circuitbreaker 2.1.3, purgatory 3.0.1 and aiobreaker 1.2.0 were considered: when half-open, each lets all
calls through until the first has ended. Here, exactly one call tries.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from macp_auth.adapters.sandbox.bulkhead import SignerBusy
from macp_auth.adapters.sandbox.translation import PluginFault
from macp_auth.adapters.wrapper import SignerWrapper
from macp_auth.domain.errors import SignerError, SignerUnavailable, reason_of
from macp_auth.domain.signer import Signer
from macp_auth.domain.statistics import Statistics

_log = structlog.get_logger()


class CircuitOpen(SignerUnavailable):
    """The circuit is open after too many consecutive failures."""

    default_reason = "circuit-open"


class CircuitBreaker(SignerWrapper):
    """Opens after consecutive failures to sign; then lets one call through at intervals to test.

    An unreachable or late backend and a plugin fault are failures. A refusal or an unknown kid is an answer.
    Reading the keys always passes.

    Args:
        signer: the signer to wrap.
        name: its name in messages.
        failures: consecutive failures that open the circuit.
        open_seconds: time until one call may try again.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        signer: Signer,
        name: str,
        *,
        failures: int,
        open_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(signer)
        self._name = name
        self._limit = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._failures = 0
        self._try_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls fail without asking the backend."""
        return self._failures >= self._limit

    async def sign(self, kid: str, signing_input: bytes) -> bytes:
        """Return the wrapped signer's signature.

        Raises:
            CircuitOpen: the circuit is open.
        """
        if self.is_open:
            if self._clock() < self._try_at:
                raise CircuitOpen(
                    f"signer {self._name!r}: circuit open after {self._limit} consecutive failures"
                )
            self._try_at = self._clock() + self._open_seconds  # only this call tries
        try:
            signature = await self._signer.sign(kid, signing_input)
        except SignerBusy:
            raise
        except (SignerUnavailable, PluginFault) as error:
            self._failed(error)
            raise
        except SignerError:
            self._answered()
            raise
        self._answered()
        return signature

    def statistics(self) -> Statistics:
        """Return the wrapped signer's numbers and whether the circuit is open: 1 or 0."""
        return {**super().statistics(), "circuit_open": int(self.is_open)}

    def _failed(self, error: SignerError) -> None:
        was_open = self.is_open
        self._failures += 1
        self._try_at = self._clock() + self._open_seconds
        if self.is_open and not was_open:
            _log.error("circuit open", signer=self._name, failures=self._failures, reason=reason_of(error))

    def _answered(self) -> None:
        if self.is_open:
            _log.info("circuit closed", signer=self._name)
        self._failures = 0
