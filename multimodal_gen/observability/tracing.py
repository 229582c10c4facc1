"""OpenTelemetry tracing, if its SDK is installed (the extra `otel`) and OTEL_EXPORTER_OTLP_ENDPOINT
is set. One span per request, with a child span per phase of each output."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SERVICE = "multimodal_gen"
_NOT_PHASES = frozenset({"total"})


class Tracing:
    """Creates the spans of one server."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(_SERVICE)

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """Span around the handling of an HTTP request, in the trace that its headers name."""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        attributes = {"http.request.method": method}
        with self._tracer.start_as_current_span(
            method, extract(headers), SpanKind.SERVER, attributes
        ) as span:
            yield span

    def answered(self, span: Span, method: str, route: str, status: int, owner: str) -> None:
        """Name the span after its route, and set its attributes."""
        from opentelemetry.trace import StatusCode

        span.update_name(f"{method} {route}")
        span.set_attributes(
            {"http.route": route, "http.response.status_code": status, "enduser.id": owner}
        )
        if status >= 500:
            span.set_status(StatusCode.ERROR)

    def here(self) -> Context:
        """Current context, as the parent of spans created later."""
        from opentelemetry.context import get_current

        return get_current()

    def output(
        self,
        parent: Context,
        accepted_at: float,
        timings: Mapping[str, float],
        attributes: Mapping[str, Any],
    ) -> None:
        """Add a span for an output accepted at `accepted_at` (Unix seconds), and one for each of
        its phases, in the order of `timings`, which is their order in time."""
        from opentelemetry.trace import set_span_in_context

        start = int(accepted_at * 1e9)
        phases = {name: s for name, s in timings.items() if name not in _NOT_PHASES}
        end = start + int(timings.get("total", sum(phases.values())) * 1e9)
        span = self._tracer.start_span(
            "generate_content", parent, start_time=start, attributes=attributes
        )
        within = set_span_in_context(span, parent)
        for name, seconds in phases.items():
            after = start + int(seconds * 1e9)
            self._tracer.start_span(name, within, start_time=start).end(after)
            start = after
        span.end(max(start, end))

    def close(self) -> None:
        """Send all pending spans."""
        self._provider.shutdown()


def tracing_from_environment() -> Tracing | None:
    """Tracing as the environment configures it; None if it is off or not installed."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("%s is set, but the extra `otel` is not installed", _ENDPOINTS[0])
        return None
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", _SERVICE)})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
