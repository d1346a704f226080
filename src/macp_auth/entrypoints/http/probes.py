"""The probes of an orchestrator, answered from memory however often they are asked.

``GET /healthz``: the process serves. It says nothing about a backend, on purpose: a liveness probe that
fails with its backend restarts every replica at the worst moment. ``GET /readyz``: this process can mint.
``GET /readyz/keys``: it has been able to, so it has keys to publish.
"""

from __future__ import annotations

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from macp_auth.application.readiness import Readiness
from macp_auth.entrypoints.http.openapi import answer

HEALTH_PATH, READY_PATH, KEYS_READY_PATH = "/healthz", "/readyz", "/readyz/keys"
_NO_STORE = {"cache-control": "no-store"}


class Health(Struct, frozen=True):
    """The process serves."""

    ok: bool = True


class Ready(Struct, frozen=True):
    """This process should get requests."""

    ready: bool = True


class NotReady(Struct, frozen=True, kw_only=True):
    """This process should get no requests now."""

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
        return _answer(readiness.reason)

    return ready


def keys_ready_route(readiness: Readiness) -> HTTPRouteHandler:
    """Return the route that answers whether ``readiness`` found this process ready since its start."""

    @get(
        KEYS_READY_PATH,
        sync_to_thread=False,
        operation_id="keysReadiness",
        summary="Whether this process has keys to publish",
        responses={200: answer(Ready, "It has keys"), 503: answer(NotReady, "It has not been able to mint")},
    )
    def ready() -> Response[Ready] | Response[NotReady]:
        return _answer(readiness.keys_reason)

    return ready


def _answer(reason: str | None) -> Response[Ready] | Response[NotReady]:
    if reason is None:
        return Response(Ready(), headers=_NO_STORE)
    return Response(NotReady(reason=reason), headers=_NO_STORE, status_code=503)
