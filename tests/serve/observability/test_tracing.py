"""Spans of a request's stages reach an OpenTelemetry collector, within the caller's trace."""

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ragengine_serve.observability.tracing import Tracing, trace_id
from tests.support.served import QUESTION, running

TRACE, PARENT = "ab" * 16, "cd" * 8


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a collector, and the bodies that it was sent."""
    bodies: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()
        thread.join()


def test_stages_are_spans_of_the_callers_trace(collector: tuple[str, list[bytes]]) -> None:
    trace_service = pytest.importorskip(
        "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="the extra otel is not installed"
    )
    address, bodies = collector
    with running(otel_endpoint=address) as served:
        reply = served.post("/v1/answer", {"question": QUESTION}, traceparent=f"00-{TRACE}-{PARENT}-01")
        assert reply.status == 200
    spans = []
    for body in bodies:
        message = trace_service.ExportTraceServiceRequest.FromString(body)
        spans += [s for r in message.resource_spans for scope in r.scope_spans for s in scope.spans]
    ours = [span for span in spans if span.trace_id.hex() == TRACE]
    (request,) = [span for span in ours if span.parent_span_id.hex() == PARENT]
    (endpoint,) = [span for span in ours if span.name == "fastapi.endpoint"]
    assert endpoint.parent_span_id == request.span_id
    stages = {span.name: span for span in ours if span.parent_span_id == endpoint.span_id}
    assert {"queue", "encode_question", "search", "read_documents", "decode"} <= stages.keys()
    decode = stages["decode"]
    milliseconds = (decode.end_time_unix_nano - decode.start_time_unix_nano) / 1e6
    assert milliseconds == pytest.approx(reply.content["timings_ms"]["decode"], abs=0.01)


def test_without_a_collector_nothing_is_sent() -> None:
    tracing = Tracing(None)
    tracing.stages({"decode": 1.0})
    assert tracing.provider is None
    assert tracing.fastapi["auto_configure"] is False
    assert tracing.fastapi["tracing"] is False
    tracing.close()


@pytest.mark.parametrize(
    "told",
    [
        None,
        "",
        "nonsense",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
    ],
)
def test_a_wrong_traceparent_begins_a_new_trace(told: str | None) -> None:
    found = trace_id(told)
    assert len(found) == 32
    assert found not in (TRACE, "0" * 32)
    assert trace_id(f"00-{TRACE}-{PARENT}-01") == TRACE
