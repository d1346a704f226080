"""Mint attempts, and those who are told of them: the audit log, metrics.

An observer is called on the event loop, between the decision and the answer. It must return at
once, and not raise; if it does raise, that is logged, and the caller gets the answer all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog
from litestar.types import Scope
from msgspec import Struct

from macp_auth.application.minting import TokenRequest
from macp_auth.domain.keyring import MintedToken
from macp_auth.entrypoints.http.errors import reason_word, status_of
from macp_auth.entrypoints.request_context import RequestContext, current

_OK = 200
_log = structlog.get_logger()


class MintAttempt(Struct, frozen=True):
    """One request for a token, when its answer is decided and not sent yet."""

    at: float
    """When it was decided, in seconds since the epoch."""
    seconds: float
    """From the request's headers to the decision. The body may have taken most of it to arrive."""
    scope: Scope
    """The request's ASGI scope: its headers, its client's address."""
    context: RequestContext
    """The request's id, and its trace."""
    request: TokenRequest | None
    """What was asked for; None if the body was not read, or is not JSON."""
    outcome: MintedToken | Exception
    """The token, or why there is none."""

    @property
    def status(self) -> int:
        """The status of the answer."""
        return status_of(self.outcome) if isinstance(self.outcome, Exception) else _OK

    @property
    def reason(self) -> str | None:
        """Why there is no token, in one word of lower case and hyphens, out of few; None if there is one."""
        return reason_word(self.outcome) if isinstance(self.outcome, Exception) else None


Observer = Callable[[MintAttempt], None]


def tell(
    observers: Sequence[Observer],
    scope: Scope,
    began: float,
    request: TokenRequest | None,
    outcome: MintedToken | Exception,
) -> None:
    """Tell each of ``observers`` of an attempt that ``began`` at that time of the monotonic clock."""
    if not observers:
        return
    attempt = MintAttempt(time.time(), time.monotonic() - began, scope, current.get(), request, outcome)
    for observe in observers:
        try:
            observe(attempt)
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets the answer
            _log.exception("an observer of mint attempts failed")
