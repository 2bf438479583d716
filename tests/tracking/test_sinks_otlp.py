"""OTLP: a collector over HTTP gets each row as it comes, and a span for each message of a conversation."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fettle.tracking import Transcript
from fettle.tracking.sinks import Described, open_sink
from fettle.types import Message

RUN = Described("nine", "", (), "sums", "", {}, simulated=False, facts={"commit": "abc"})
TALK = Transcript("sum-7", (Message("user", "1 + 2 ="), Message("assistant", "3")), 0.75, {})


@pytest.fixture
def collector():
    """A server, and what was sent to each of its paths."""
    sent = {"/v1/metrics": [], "/v1/traces": []}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            zipped = self.headers.get("Content-Encoding") == "gzip"
            sent[self.path].append(gzip.decompress(body) if zipped else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    server.server_close()
    thread.join()


def test_rows_come_one_by_one_and_conversations_as_spans(collector):
    address, sent = collector
    sink = open_sink("otlp", address, RUN)
    sink.log(1, {"heldout/pass@4": 0.25})
    sink.log(2, {"heldout/pass@4": 0.5})
    sink.transcripts(2, [TALK])
    sink.close()
    rows = []
    for body in sent["/v1/metrics"]:
        [told] = ExportMetricsServiceRequest.FromString(body).resource_metrics
        [scope] = told.scope_metrics
        rows.append({each.name: each.gauge.data_points[0].as_double for each in scope.metrics})
        about = {each.key: each.value.string_value for each in told.resource.attributes}
        assert (about["fettle.run"], about["fettle.commit"]) == ("nine", "abc")
    assert rows == [{"fettle.step": n, "fettle.heldout.pass_4": value} for n, value in ((1, 0.25), (2, 0.5))]
    spans = [
        span
        for body in sent["/v1/traces"]
        for told in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in told.scope_spans
        for span in scope.spans
    ]
    [root] = [span for span in spans if span.name == "rollout"]
    children = [span.name for span in spans if span.parent_span_id == root.span_id]
    assert children == ["user", "assistant"]
