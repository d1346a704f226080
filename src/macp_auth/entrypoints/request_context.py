"""The context of the current request, for logs and records.

A context variable is local to each request's task. It is read only when something is logged, because a
successful mint logs nothing.
"""

from __future__ import annotations

from contextvars import ContextVar

import structlog
from msgspec import Struct


class RequestContext(Struct, frozen=True, gc=False):
    """The identifiers of a request."""

    id: str
    """Sent in the response as ``x-request-id``. Empty outside a request."""
    traceparent: str | None = None
    """The caller's W3C trace context, if it sent a valid one."""


OUTSIDE = RequestContext("")
current: ContextVar[RequestContext] = ContextVar("macp_auth_request", default=OUTSIDE)


def add_request(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the current request to a log line (a structlog processor)."""
    request = current.get()
    if request is not OUTSIDE:
        event.setdefault("request_id", request.id)
        if request.traceparent is not None:
            event.setdefault("traceparent", request.traceparent)
    return event
