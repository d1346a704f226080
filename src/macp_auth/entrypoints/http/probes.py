"""The probes of an orchestrator, answered from memory however often they are asked.

``GET /healthz``: the process serves. It says nothing about a backend, on purpose: a liveness probe that
fails with its backend restarts every replica at the worst moment. ``GET /readyz``: this process can mint.
"""

from __future__ import annotations

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from macp_auth.application.readiness import Readiness
from macp_auth.entrypoints.http.openapi import answer

HEALTH_PATH, READY_PATH = "/healthz", "/readyz"
_NO_STORE = {"cache-control": "no-store"}


class Health(Struct, frozen=True):
    """The process serves."""

    ok: bool = True


class Ready(Struct, frozen=True):
    """This process can mint."""

    ready: bool = True


class NotReady(Struct, frozen=True, kw_only=True):
    """This process can't mint now."""

    ready: bool = False
    reason: str
    """One of the documented reasons."""


@get(
    HEALTH_PATH,
    sync_to_thread=False,
    operation_id="health",
    summary="Whether the process serves",
    responses={200: answer(Health, "It serves")},
)
def health_route() -> Health:
    """Answer that the process serves."""
    return Health()


def ready_route(readiness: Readiness) -> HTTPRouteHandler:
    """Return the route that answers what ``readiness`` found last."""

    @get(
        READY_PATH,
        sync_to_thread=False,
        operation_id="readiness",
        summary="Whether this process can mint",
        responses={200: answer(Ready, "It can mint"), 503: answer(NotReady, "It can't mint now")},
    )
    def ready() -> Response[Ready] | Response[NotReady]:
        if (reason := readiness.reason) is None:
            return Response(Ready(), headers=_NO_STORE)
        return Response(NotReady(reason=reason), headers=_NO_STORE, status_code=503)

    return ready
