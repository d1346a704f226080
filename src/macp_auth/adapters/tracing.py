"""OpenTelemetry: a span for each request, sent by OTLP. Off by default; needs the extra ``otel``.

Where spans go, under which name and how many of them is read by OpenTelemetry's SDK from its own
variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER).
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.types import ASGIApp, Receive, Scope, Send
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from macp_auth.entrypoints.http import health, jwks, ready, tokens

_PROBES = f"{health.PATH}$,{ready.PATH}$"
_FLUSH_SECONDS = 1.0  # the end waits no longer for a collector


class Tracing:
    """The spans of one process. Made when tracing is on, and not else."""

    def __init__(self) -> None:
        named = Resource.create({"service.name": "macp-auth"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

    def traced(self, app: ASGIApp) -> ASGIApp:
        """Return ``app`` with a span for each request."""
        traced: ASGIApp = OpenTelemetryMiddleware(  # type: ignore[assignment]  # its scopes are any mapping
            _told_of_span(app),
            excluded_urls=_PROBES,
            default_span_details=_span_name,
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["receive", "send"],
        )
        return traced

    @asynccontextmanager
    async def lifespan(self, _app: Litestar) -> AsyncIterator[None]:
        """Send at the end what was not sent yet, if the collector takes it soon."""
        try:
            yield
        finally:
            flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
            flushing.start()
            flushing.join(_FLUSH_SECONDS)


def _span_name(scope: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    known = scope["path"] in (tokens.PATH, jwks.PATH)  # any other is whatever a caller made up
    return f"{scope['method']} {scope['path']}" if known else scope["method"], {}


def _told_of_span(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with the span under way as the request's ``traceparent``, for what is logged of it."""
    propagator = TraceContextTextMapPropagator()

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        if (own := carrier.get("traceparent")) is not None:
            others = [header for header in scope["headers"] if header[0] != b"traceparent"]
            scope["headers"] = [*others, (b"traceparent", own.encode())]
        await app(scope, receive, send)

    return told
