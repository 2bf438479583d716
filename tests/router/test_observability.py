"""What a run tells elsewhere: to a page, to a collector, to nobody unless it was switched on."""

import json
import socket
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from fettle.cli import main
from fettle.errors import ConfigError
from fettle.router.observability import described, observed
from fettle.router.training import train
from tests.router.asking import until

ON = "rllm.observability.enabled=true"
TRACED = (ON, "rllm.observability.tracing.enabled=true")
NAMED = ("rllm.experiment.name=seven", "rllm.experiment.description=why", "rllm.experiment.tags=[a, b]")


class Collector:
    """What was received, of either protocol."""

    def __init__(self):
        self.resources = []
        self.spans = []

    def take(self, request):
        for each in request.resource_spans:
            self.resources.append({a.key: a.value for a in each.resource.attributes})
            self.spans += [span for scope in each.scope_spans for span in scope.spans]

    def named(self, name):
        found = [span for span in self.spans if span.name == name]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


@pytest.fixture
def over_grpc():
    collector = Collector()

    def export(request, context):
        collector.take(request)
        return ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, (f"rllm.observability.tracing.endpoint=http://127.0.0.1:{port}",)
    server.stop(None).wait()


@pytest.fixture
def over_http():
    collector = Collector()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
    yield (
        collector,
        ("rllm.observability.tracing.exporter=otlp_http", f"rllm.observability.tracing.endpoint={endpoint}"),
    )
    server.shutdown()
    thread.join()
    server.server_close()


def run(config):
    rows = []
    with observed(config) as told:

        def tell(row):
            rows.append(row)
            told.row(row)

        trained = train(config, told=tell, spans=told.spans)
        if trained.stopped is not None:
            told.stopped(trained.stopped)
    return rows, trained


@pytest.mark.parametrize("protocol", ["over_grpc", "over_http"])
def test_a_collector_receives_a_span_for_each_rollout_and_each_update_within_the_runs(small, protocol, request):
    collector, settings = request.getfixturevalue(protocol)
    rows, _ = run(small(*TRACED, *NAMED, *settings))
    [whole] = collector.named("train")
    for name in ("rollout", "update"):
        spans = collector.named(name)
        assert len(spans) == len(rows) == 3
        assert {span.parent_span_id for span in spans} == {whole.span_id}
        assert {span.trace_id for span in spans} == {whole.trace_id}
        assert all(span.end_time_unix_nano > span.start_time_unix_nano for span in spans)
    attributes = [{a.key: a.value for a in span.attributes} for span in collector.named("update")]
    assert [each["fettle.update"].int_value for each in attributes] == [1, 2, 3]
    assert [each["fettle.policy_loss"].double_value for each in attributes] == [row["policy_loss"] for row in rows]
    drawn = [{a.key: a.value for a in span.attributes} for span in collector.named("rollout")]
    assert [each["fettle.mean_reward"].double_value for each in drawn] == [row["mean_reward"] for row in rows]
    about = collector.resources[0]
    assert (about["fettle.experiment"].string_value, about["fettle.description"].string_value) == ("seven", "why")
    assert [each.string_value for each in about["fettle.tags"].array_value.values] == ["a", "b"]
    assert about["fettle.simulated"].string_value == "true"


def test_telling_changes_no_number(small, over_grpc):
    collector, settings = over_grpc
    assert run(small(*TRACED, *settings))[0] == run(small())[0]
    assert len(collector.spans) == 7  # the run, and a rollout and an update for each of three rows


def test_a_collector_that_is_away_does_not_end_the_run(small):
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    config = small(*TRACED, f"rllm.observability.tracing.endpoint=http://127.0.0.1:{port}")
    assert len(run(config)[0]) == 3


def test_a_page_has_the_numbers_of_the_newest_update(small):
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    page = ("rllm.observability.metrics.backend=prometheus", f"rllm.observability.metrics.destination=127.0.0.1:{port}")
    config = small(ON, "rllm.observability.metrics.enabled=true", *page, *NAMED)
    pages, rows = [], []

    def shows(row):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        shown = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        pages.append(page)
        return all(
            float(shown.get(f'fettle_router_{name}{{name="seven"}}', "nan")) == value for name, value in row.items()
        )

    with observed(config) as told:

        def tell(row):
            rows.append(row)
            told.row(row)
            until(lambda: shows(row))  # nobody waits for a sink

        train(config, told=tell)
    assert len(rows) == 3
    assert 'simulated="true",tags="a,b"' in pages[0]


def test_a_sink_is_told_what_the_experiment_is(small):
    config = small(*NAMED, "rllm.observability.metrics.tags=[b, c]", "rllm.observability.metrics.entity=us")
    about = described(config)
    assert (about.name, about.description, about.tags) == ("seven", "why", ("a", "b", "c"))
    assert (about.project, about.entity, about.simulated) == ("naestro", "us", True)
    assert about.settings["rllm.ppo.rollout_length"] == 64


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("metrics.backend=mlfow", "did you mean mlflow"),
        ("metrics.backend=datadog", "is none of wandb, mlflow, tensorboard, prometheus"),
        ("tracing.exporter=zipkin", "is none of otlp, otlp_http"),
    ],
)
def test_a_name_that_is_none_is_refused(small, setting, sentence):
    with pytest.raises(ConfigError, match=sentence):
        small(f"rllm.observability.{setting}")


def test_under_the_master_switch_nothing_is_opened(small, over_http, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collector, settings = over_http
    parts = [f"rllm.observability.{part}.enabled=true" for part in ("logging", "metrics", "tracing")]
    rows, _ = run(small(*parts, *settings))
    assert len(rows) == 3
    assert collector.spans == []
    with observed(small(*parts, *settings)) as told:
        assert told.sink is None
    assert list(tmp_path.iterdir()) == []
    run(small(ON, parts[2], *settings))
    assert len(collector.spans) == 7  # one was there all the time


def test_a_run_that_a_breaker_stopped_says_so_in_its_spans(small, over_http):
    collector, settings = over_http
    run(small(*TRACED, *settings, "rllm.breakers.min_entropy=1.7"))
    [whole] = collector.named("train")
    assert whole.status.code == whole.status.STATUS_CODE_ERROR
    assert whole.status.message.startswith("update 1 was undone: entropy fell to")


def test_the_verb_sends_curves_and_ends_a_run_that_a_breaker_stopped_as_failed(tmp_path, monkeypatch, capsys):
    client = pytest.importorskip("mlflow.tracking").MlflowClient
    monkeypatch.chdir(tmp_path)
    place = f"sqlite:///{tmp_path / 'mlflow.db'}"
    settings = ["rllm.enabled=true", "rllm.trainer.enabled=true", ON, "rllm.observability.metrics.enabled=true"]
    settings += ["rllm.observability.metrics.backend=mlflow", f"rllm.observability.metrics.destination={place}"]
    settings += ["rllm.ppo.rollout_length=64", "rllm.ppo.mini_batch_size=32", *NAMED]
    for more, code in ((["--updates", "2"], 0), (["rllm.breakers.min_entropy=1.7"], 1)):
        monkeypatch.setattr("sys.argv", ["fettle", "router", "train", *settings, *more])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code, capsys.readouterr().err
    runs = client(tracking_uri=place).search_runs(
        [client(tracking_uri=place).get_experiment_by_name("naestro").experiment_id]
    )
    assert [each.info.status for each in runs] == ["FAILED", "FINISHED"]
    assert json.loads(json.dumps(runs[1].data.metrics))["router/update"] == 2.0


def test_a_sink_that_cannot_be_opened_ends_the_verb_before_it_touches_what_an_earlier_run_left(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    left = tmp_path / "outputs" / "rllm" / "metadata.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    settings = ["rllm.enabled=true", "rllm.trainer.enabled=true", ON, "rllm.experiment.enabled=true"]
    settings += ["rllm.observability.metrics.enabled=true", "rllm.observability.metrics.backend=prometheus"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings.append(f"rllm.observability.metrics.destination=127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setattr("sys.argv", ["fettle", "router", "train", *settings])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 1
    assert "prometheus cannot be opened at" in capsys.readouterr().err
    assert left.read_text() == "{}"
