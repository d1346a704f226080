"""OpenTelemetry spans for requests, sent by OTLP. Off by default; needs the extra ``otel``.

OpenTelemetry's SDK reads the endpoint, the service name and the sampler from its own variables
(OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER).
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_FLUSH_SECONDS = 1.0  # how long the shutdown waits for a collector


ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class Tracing:
    """The spans of one process."""

    def __init__(self) -> None:
        named = Resource.create({"service.name": "macp-auth"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

    def traced(self, app: ASGIApp, *, named: Collection[str], excluded: Collection[str]) -> ASGIApp:
        """Return ``app`` with a span for each request.

        Args:
            app: an ASGI application.
            named: the paths that may be in a span's name; any other comes from the caller.
            excluded: the paths of requests without a span.
        """
        traced: ASGIApp = OpenTelemetryMiddleware(
            _with_span_as_parent(app),
            excluded_urls=",".join(f"{path}$" for path in excluded),
            default_span_details=partial(_span_name, named),
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["receive", "send"],
        )
        return traced

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send the remaining spans at the end, if the collector accepts them in time."""
        try:
            yield
        finally:
            flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
            flushing.start()
            flushing.join(_FLUSH_SECONDS)


def _span_name(named: Collection[str], scope: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return f"{scope['method']} {scope['path']}" if scope["path"] in named else scope["method"], {}


def _with_span_as_parent(app: ASGIApp) -> ASGIApp:
    """Return ``app`` with the current span as the request's ``traceparent``, for its log lines."""
    propagator = TraceContextTextMapPropagator()

    async def with_span(scope: Any, receive: Any, send: Any) -> None:
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        if (own := carrier.get("traceparent")) is not None:
            others = [header for header in scope["headers"] if header[0] != b"traceparent"]
            scope["headers"] = [*others, (b"traceparent", own.encode())]
        await app(scope, receive, send)

    return with_span
