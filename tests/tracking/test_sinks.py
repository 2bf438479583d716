"""Sinks of numbers, each by its real package: what was logged is read back by that package's own means."""

import json
import socket
import struct
import sys
import time
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from fettle.errors import ConfigError, StorageError
from fettle.tracking.sinks import EXTRAS, Described, open_sink

RUN = Described(
    name="seven",
    description="what it is for",
    tags=("a", "b"),
    project="routers",
    entity="us",
    settings={"rllm.ppo.gamma": 0.9},
    simulated=True,
)
ROWS = [{"router/mean_reward": 0.25, "router/entropy": 1.5}, {"router/mean_reward": 0.5, "router/entropy": 1.0}]


def logged(kind, destination, *, failed=False):
    sink = open_sink(kind, str(destination), RUN)
    for step, row in enumerate(ROWS, start=1):
        sink.log(step, row)
    sink.close(failed=failed)


def test_tensorboard_has_the_numbers_and_what_the_run_is(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logged("tensorboard", tmp_path)
    events = reader.EventAccumulator(str(tmp_path / "routers" / "seven")).Reload()
    for name in ROWS[0]:
        assert [(each.step, each.value) for each in events.Scalars(name)] == [(1, ROWS[0][name]), (2, ROWS[1][name])]
    [text] = events.Tensors("description/text_summary")
    assert text.tensor_proto.string_val == [b"what it is for"]
    assert events.Tensors("simulated/text_summary")[0].tensor_proto.string_val == [b"true"]
    assert events.Tensors("tags/text_summary")[0].tensor_proto.string_val == [b"a, b"]


def test_tensorboard_gets_what_it_lacks_of_a_run_that_is_resumed_and_nothing_twice(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logged("tensorboard", tmp_path)
    sink = open_sink("tensorboard", str(tmp_path), RUN)
    sink.catch_up([{"step": step, "time": 1e9, **ROWS[0]} for step in (1, 2, 3)])
    sink.close()
    events = reader.EventAccumulator(str(tmp_path / "routers" / "seven")).Reload()
    assert [(each.step, each.value) for each in events.Scalars("router/mean_reward")] == [
        (1, 0.25),
        (2, 0.5),
        (3, 0.25),
    ]


def test_a_run_that_is_resumed_goes_on_with_its_own_in_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    told, until = set(), time.monotonic() + 60
    for _ in range(2):
        open_sink("wandb", "", replace(RUN, kept=tmp_path)).close()
        told.add(json.loads((tmp_path / "wandb.json").read_text())["run"])
    while not (files := list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))):  # written by another process
        assert time.monotonic() < until
    assert {path.stem.removeprefix("run-") for path in files} == told


def test_wandb_has_the_numbers_and_what_the_run_is_with_no_network(tmp_path, monkeypatch):
    record = pytest.importorskip("wandb.proto.wandb_internal_pb2").Record
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    logged("wandb", "")
    [file] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    records, until = [], time.monotonic() + 60
    while "exit" not in [each.WhichOneof("record_type") for each in records]:  # it is written by another process
        assert time.monotonic() < until
        records = [record.FromString(each) for each in wandb_records(file.read_bytes())]
    rows = [{i.key or i.nested_key[0]: json.loads(i.value_json) for i in r.history.item} for r in records]
    assert [{name: row[name] for name in ROWS[0]} for row in rows if ROWS[0].keys() <= row.keys()] == ROWS
    [run] = [record.run for record in records if record.run.run_id][:1]
    assert (run.project, run.entity, run.display_name, run.notes) == ("routers", "us", "seven", "what it is for")
    assert list(run.tags) == ["a", "b"]
    config = {each.key: json.loads(each.value_json) for each in run.config.update}
    assert (config["rllm.ppo.gamma"], config["simulated"]) == (0.9, True)


def wandb_records(contents: bytes):
    """The records of a ``.wandb`` file: after 7 bytes, blocks of 32 KiB, of pieces with a checksum, length and kind."""
    at, whole = 7, b""
    while at + 7 <= len(contents):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", contents, at)
        whole += contents[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a piece that is all of a record, or its last
            yield whole
            whole = b""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def test_prometheus_reads_the_newest_numbers_from_a_page_that_goes_with_the_run():
    port = free_port()
    sink = open_sink("prometheus", f"127.0.0.1:{port}", RUN)
    for step, row in enumerate(ROWS, start=1):
        sink.log(step, row)
    page, until = "", time.monotonic() + 60
    while 'fettle_step{name="seven"} 2.0' not in page:  # it is written by a thread
        assert time.monotonic() < until
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
    sink.close(failed=False)
    assert 'fettle_router_mean_reward{name="seven"} 0.5' in page
    assert 'fettle_step{name="seven"} 2.0' in page
    assert 'description="what it is for",entity="us",name="seven",project="routers",simulated="true",tags="a,b"' in page
    with socket.socket() as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(("127.0.0.1", port))


@pytest.mark.parametrize("by", ["udp", "unix"])
def test_an_agent_of_datadog_receives_each_number_as_a_gauge(by, tmp_path):
    kind, place = (socket.AF_INET, ("127.0.0.1", 0)) if by == "udp" else (socket.AF_UNIX, str(tmp_path / "agent"))
    with socket.socket(kind, socket.SOCK_DGRAM) as agent:
        agent.bind(place)
        agent.settimeout(60)
        sink = open_sink("datadog", f"127.0.0.1:{agent.getsockname()[1]}" if by == "udp" else f"unix://{place}", RUN)
        many = {f"router/value_{at}": at / 7 for at in range(40)}
        for step, row in enumerate([{**ROWS[0], **many, "router/none": float("nan")}, ROWS[1]], start=1):
            sink.log(step, row)
        sink.close()
        received: list[str] = []
        while not received or not received[-1].startswith("fettle.router.entropy:1.0|"):
            datagram = agent.recv(1 << 16)
            assert len(datagram) <= (1432 if by == "udp" else 8192)
            received += datagram.decode().split("\n")
    numbers = [line.partition("|")[0].rpartition(":") for line in received]
    sent = [("step", 1), *ROWS[0].items(), *many.items(), ("step", 2), *ROWS[1].items()]
    assert [(name, float(value)) for name, _, value in numbers] == [
        (f"fettle.{name.replace('/', '.')}", value) for name, value in sent
    ]
    assert {line.partition("|")[2] for line in received} == {"g|#run:seven,project:routers,simulated:true,a,b"}


def test_an_agent_that_is_not_there_is_told_where_it_can_be(tmp_path):
    with pytest.raises(StorageError, match="datadog cannot be opened at unix://"):
        open_sink("datadog", f"unix://{tmp_path}/none", RUN)


def test_a_subscriber_hears_the_beginning_each_row_and_the_end_in_that_order():
    heard: list[dict[str, object]] = []

    class Subscriber(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Subscriber) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        sink = open_sink("events", f"http://127.0.0.1:{server.server_address[1]}/fettle", RUN)
        for step, row in enumerate([{**ROWS[0], "router/none": float("nan")}, ROWS[1]], start=1):
            sink.log(step, row)
        sink.close()
        server.shutdown()
    assert [(each["event"], each["number"], each["run"]) for each in heard] == [
        ("start", 1, "seven"),
        ("metrics", 2, "seven"),
        ("metrics", 3, "seven"),
        ("end", 4, "seven"),
    ]
    assert [each["row"] for each in heard[1:3]] == [{**ROWS[0], "router/none": None}, ROWS[1]]
    assert heard[0]["settings"] == dict(RUN.settings)
    assert heard[3]["failed"] is False
    with pytest.raises(StorageError, match=r"events cannot be opened at http://127.0.0.1:9/"):
        open_sink("events", "http://127.0.0.1:9/", RUN)


def test_a_port_that_is_taken_is_one_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StorageError, match=f"prometheus cannot be opened at {place}") as caught:
            open_sink("prometheus", place, RUN)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("place", ["9464", "here", "127.0.0.1:http"])
def test_an_address_that_is_none_is_one_sentence(place):
    with pytest.raises(ConfigError, match="is no host and port"):
        open_sink("prometheus", place, RUN)


@pytest.mark.parametrize(
    ("kind", "package"),
    [
        ("wandb", "wandb"),
        ("mlflow", "mlflow"),
        ("tensorboard", "tensorboard"),
        ("prometheus", "prometheus_client"),
        ("otlp", "opentelemetry"),
    ],
)
def test_a_package_that_is_not_installed_is_one_sentence_with_its_extra(kind, package, monkeypatch):
    for module in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)  # what is loaded already is found without its package
    monkeypatch.delitem(sys.modules, f"fettle.tracking.sinks.{kind}", raising=False)
    with pytest.raises(ConfigError, match=rf"{kind} needs .*pip install 'fettle\[{EXTRAS[kind]}\]'") as caught:
        open_sink(kind, "", RUN)
    assert "\n" not in caught.value.message


def test_a_sink_that_fails_later_ends_itself_and_not_the_run(caplog):
    port = free_port()
    sink = open_sink("prometheus", f"127.0.0.1:{port}", RUN)
    sink.log(1, {"router/one": 1.0, "router_one": 2.0})  # two names that Prometheus cannot tell apart
    sink.log(2, {"router/two": 2.0})
    sink.close(failed=True)
    assert "prometheus takes no more of the run's numbers: DuplicateTimeseries" in caplog.text
    with socket.socket() as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(("127.0.0.1", port))
