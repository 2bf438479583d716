"""Traces: a real receiver sees a request and, under it, what it had computed."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fettle.cli.serving import _traced
from tests.service.served import serving

BATCH = {"data": [{"tokens": [5, 9, 41, 7]}], "loss": {"type": "causal_lm"}}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def received():
    spans = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            spans.extend(s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{receiver.server_port}/v1/traces", spans
    receiver.shutdown()
    receiver.server_close()


def test_a_request_and_what_it_computes_are_one_trace(tmp_path, tiny_model, received):
    endpoint, spans = received
    ends = []

    def layers(service):
        found, end = _traced(service)
        ends.append(end)
        return found

    with serving(tmp_path / "state", tiny_model, layers=layers, otlp_endpoint=endpoint) as served:
        with served.client() as client:
            run = client.new_run(lora={"rank": 2})
            address = f"/v1/runs/{run}/forward_backward?wait=30"
            assert client.post(address, json=BATCH, headers={"traceparent": PARENT}).is_success
        ends[0]()
    by_name = {span.name: span for span in spans}
    request = by_name["POST /v1/runs/{run_id}/forward_backward"]
    operation = by_name["forward_backward"]
    assert request.trace_id.hex() == PARENT.split("-")[1]
    assert operation.trace_id == request.trace_id
    assert operation.parent_span_id == request.span_id
    assert {a.key for a in operation.attributes} >= {"fettle.run", "fettle.seconds", "fettle.tokens"}
