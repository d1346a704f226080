"""Which request is being served: for whatever is logged or recorded on its behalf.

A context variable, which each request's task has for itself. Nothing is bound to a logger before
something is logged, for a token that is minted without trouble logs nothing.
"""

from __future__ import annotations

from contextvars import ContextVar

import structlog
from msgspec import Struct


class RequestContext(Struct, frozen=True, gc=False):
    """What names a request."""

    id: str
    """Also in the answer, as ``x-request-id``. Empty outside of any request."""
    traceparent: str | None = None
    """The caller's W3C trace context, if it sent a good one."""


OUTSIDE = RequestContext("")
current: ContextVar[RequestContext] = ContextVar("macp_auth_request", default=OUTSIDE)


def add_request(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the request to a log line that is written while one is served (a structlog processor)."""
    request = current.get()
    if request is not OUTSIDE:
        event.setdefault("request_id", request.id)
        if request.traceparent is not None:
            event.setdefault("traceparent", request.traceparent)
    return event
