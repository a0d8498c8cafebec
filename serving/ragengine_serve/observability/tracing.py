"""W3C trace context, and OpenTelemetry spans of a request's stages where a collector is given."""

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from fastapi.telemetry import TelemetryConfig

from ragengine.errors import DependencyError
from ragengine.installation import pip_install

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_id(traceparent: str | None) -> str:
    """The trace that a request's ``traceparent`` names; a new one where it names none."""
    found = _TRACEPARENT.match(traceparent or "")
    return found[1] if found else secrets.token_hex(16)


class Tracing:
    """Spans; without an endpoint they cost nothing."""

    def __init__(self, endpoint: str | None) -> None:
        """``endpoint`` is the collector's address, such as ``http://localhost:4318``.

        Raises:
            DependencyError: the extra ``otel`` is not installed.
        """
        self.provider: Any = None
        if endpoint is None:
            return
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as reason:
            raise DependencyError(
                f"OpenTelemetry is not installed; run {pip_install('otel')}, or give no endpoint."
            ) from reason
        self.provider = TracerProvider(resource=Resource.create({"service.name": "ragengine"}))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self.provider.add_span_processor(BatchSpanProcessor(exporter))

    @property
    def fastapi(self) -> TelemetryConfig:
        """FastAPI's own settings: a span a request with a collector; nothing is sent without."""
        told: TelemetryConfig = {"auto_configure": False, "metrics": False, "logs": False, "tracing": False}
        return told | {"tracing": True, "tracer_provider": self.provider} if self.provider else told

    def stages(self, timings_ms: Mapping[str, float]) -> None:
        """Spans of the stages that have just ended, below the request's own, one after the other."""
        if self.provider is None:
            return
        tracer = self.provider.get_tracer("ragengine_serve")
        moment = time.time_ns() - int(sum(timings_ms.values()) * 1e6)
        for stage, milliseconds in timings_ms.items():
            span = tracer.start_span(stage, start_time=moment)
            moment += int(milliseconds * 1e6)
            span.end(end_time=moment)

    def close(self) -> None:
        """Send what is still to be sent."""
        if self.provider is not None:
            self.provider.shutdown()
