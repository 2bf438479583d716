"""What the benchmarks of the service make of what they find."""

import importlib
import json
import re
import subprocess
import sys
from inspect import signature
from random import Random

import pytest

from benchmarks import fuzz, messages, mutations, service_page, timed_server
from benchmarks.crash import TENANTS, Run, Told, judged, told_by
from benchmarks.crash_client import STEP, call_at
from benchmarks.harness import Outcome, Row, main
from benchmarks.service import request_sizes
from benchmarks.skyrl import without_uv
from benchmarks.soak import grown
from benchmarks.tables import table
from fettle.calls import call_digest
from tests.benchmarks.test_rows import MEASURED

OPERATIONS = 2 * STEP


def run(**changes: Told) -> Run:
    whole = {"taken": set(range(OPERATIONS)), "done": {seq: {f"answer {seq}"} for seq in range(OPERATIONS)}}
    told = {name: changes.get(name) or Told(**whole) for name in TENANTS}
    return Run(told, dict.fromkeys(TENANTS, "weights"), dict.fromkeys(TENANTS, 2))


def faults(struck: Run) -> dict[str, int]:
    return {name: number for name, number in judged(struck, run(), OPERATIONS).items() if number}


def test_a_run_that_went_as_it_would_have_without_kills_has_no_fault():
    assert faults(run()) == {}


def test_an_acknowledged_operation_without_an_answer_is_lost():
    told = Told(taken={0, 1}, done={0: {"answer 0"}})
    assert faults(run(ben=told))["acknowledged operations lost"] == 1


def test_a_step_done_twice_shows_in_the_version_and_other_weights_in_their_hash():
    struck = run()
    struck.versions["cy"] = 3
    struck.weights["cy"] = "others"
    assert faults(struck) == {"operations doubled": 1, "weights that differ": 1}


def test_another_answer_after_a_crash_is_told():
    done = {seq: {f"answer {seq}"} for seq in range(OPERATIONS)} | {2: {"answer 2", "another"}}
    struck = run(ada=Told(taken=set(range(OPERATIONS)), done=done, draws={"key": {"1"}}))
    assert faults(struck) == {
        "operations with two answers": 1,
        "answers that differ": 1,
        "draws that went wrong": 1,
    }


def test_what_a_killed_program_wrote_is_read_up_to_its_last_whole_line(tmp_path):
    (tmp_path / "told").write_text("taken 0\ndone 0 ab\ndraw key 2\nwrong 1 failed: why\ntaken 1")
    told = told_by(tmp_path)
    assert (told.taken, told.done, told.draws) == ({0}, {0: {"ab"}}, {"key": {"2"}})
    assert told.wrong == ["1 failed: why"]
    assert told_by(tmp_path / "nothing").taken == set()


def test_a_program_says_the_same_at_the_same_number_and_steps_after_two_gradients():
    digests = [call_digest(call_at("ada", seq)) for seq in range(STEP)]
    assert digests == [call_digest(call_at("ada", seq)) for seq in range(STEP)]
    assert len({*digests, call_digest(call_at("ben", 0))}) == STEP + 1
    assert [type(call_at("ada", seq)).__name__ for seq in range(4)] == [
        "ForwardBackward",
        "ForwardBackward",
        "OptimStep",
        "ForwardBackward",
    ]


@pytest.mark.parametrize(
    ("values", "growth"), [([100.0] * 10, 0.0), ([100.0, 105.0, 110.0], 0.1), ([110, 100], -1 / 11)]
)
def test_growth_is_that_of_a_line_from_its_beginning_to_its_end(values, growth):
    assert grown(values) == pytest.approx(growth)


async def test_what_the_backend_computed_during_a_request_is_told_beside_its_seconds(monkeypatch):
    def span(started, ended):
        return timed_server.Moment(started, started / 10), timed_server.Moment(ended, ended / 10)

    monkeypatch.setattr(timed_server, "requests", [("/v1/x", span(10.0, 20.0))])
    monkeypatch.setattr(
        timed_server, "computed", [span(5.0, 9.0), span(12.0, 15.0), span(16.0, 17.0), span(21.0, 22.0)]
    )
    sent = []

    async def send(message):
        sent.append(message)

    await timed_server.Timed(None)({"type": "http", "path": timed_server.ADDRESS}, None, send)
    (told,) = json.loads(sent[1]["body"])
    assert (told["path"], told["seconds"], told["computed"]) == ("/v1/x", 10.0, 4.0)
    assert (told["processor_seconds"], told["processor_computed"]) == pytest.approx((1.0, 0.4))
    assert timed_server.requests == []


def test_a_call_of_the_backend_is_noted_even_when_it_fails(monkeypatch):
    monkeypatch.setattr(timed_server, "computed", [])
    with pytest.raises(ZeroDivisionError):
        timed_server.timed(lambda: 1 // 0)()
    assert len(timed_server.computed) == 1


def test_the_peers_engine_is_started_in_the_environment_that_is_there(tmp_path):
    uv = without_uv(sys.executable, tmp_path) / "uv"
    command = [uv, "run", "--extra", "tinker", "--extra", "jax", "-m", "json.tool", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "json.tool" in done.stdout


def test_a_request_is_smaller_in_binary():
    sizes = request_sizes()
    assert sizes["json_bytes"] > sizes["binary_bytes"] > sizes["binary_deflated_bytes"]
    assert sizes["times_smaller"] == sizes["json_bytes"] / sizes["binary_deflated_bytes"]


def test_columns_are_as_wide_as_what_stands_in_them():
    assert table(["what", "ms"], [["a", "1"], ["longer", "20"]]).splitlines() == [
        "what    ms",
        "------  --",
        "a        1",
        "longer  20",
    ]


def test_messages_made_at_random_have_something_of_everything_and_say_the_same_for_one_seed():
    made = [messages.filled(Random(seed)) for seed in range(100)]
    assert made == [messages.filled(Random(seed)) for seed in range(100)]
    assert any(datum.loss_fn_inputs for message in made for datum in message.data)
    assert any(message.loss_fn_config_v2 for message in made)


def test_what_is_damaged_differs_and_a_sound_message_can_be_read():
    sound = messages.sound(Random(0))
    said = sound.SerializeToString()
    assert [datum.model_input[0].HasField("encoded_text") for datum in type(sound).FromString(said).data]
    assert len({said, *(mutations.damaged(said, Random(seed)) for seed in range(20))}) > 15


def test_bodies_are_made_wrong_in_types_and_structure_and_the_same_for_one_seed():
    sound = {"a": [1, {"b": "c"}], "d": 1.5}
    before = json.dumps(sound)
    made = [mutations.written(mutations.mutated(sound, Random(seed))) for seed in range(600)]
    assert made == [mutations.written(mutations.mutated(sound, Random(seed))) for seed in range(600)]
    assert json.dumps(sound) == before
    wanted = {
        "a missing key": b'{"d": 1.5}',
        "no number": b"NaN",
        "a huge number": b"9" * 5000,
        "depth": b"[" * mutations.DEPTH,
        "half a character": b"ud800",
        "an unknown key": b'"unknown"',
        "a doubled key": b'"d": 1.5, "d"',
        "another type": b'"1.5"',
        "a long list": b"1, 1, 1, 1, 1, 1, 1, 1",
    }
    assert [name for name, part in wanted.items() if not any(part in each for each in made)] == []


def test_only_a_500_and_silence_are_faults():
    assert [status for status in (0, 200, 404, 422, 429, 500, 502, 503) if fuzz.is_fault(status)] == [0, 500, 502]


def test_the_page_of_the_service_marks_what_was_not_measured():
    told = service_page.page([])
    for name in service_page.ROWS:
        assert re.search(rf"^\| `{name}` .*\| not measured \| \|$", told, re.MULTILINE)


def test_every_record_of_the_service_is_told_on_its_page():
    seconds = {"median": 0.2, "q1": 0.1, "q3": 0.3, "n": 15}
    found = {
        "service": ({"overhead": {"JSON": {"forward_backward": {"overhead_ms": seconds}}}}, {}),
        "journal": ({"idle_milliseconds": seconds}, {"idle_milliseconds": {**seconds, "median": 0.1}}),
        "skyrl": ({"tiny": {"seconds": seconds}}, {"tiny": {"seconds": {**seconds, "median": 1.0}}}),
        "crash": ({"kills": {"the server": 7}, "recovery_seconds": {"median": 3.0, "worst": 4.0, "n": 7}}, {}),
        "soak": ({"resident_mib": [100.0, 101.0, 102.0, 103.0], "every_seconds": 60.0, "done": {"steps": 9}}, {}),
        "fuzz": ({"requests": 30, "seed": 0, "classes": {"native": {"2xx": 10, "4xx": 20}}}, {}),
    }
    records = [
        {**MEASURED, "benchmark": name, "ratio": 0.02, "ours": ours, "peer": peer, "notes": ["a | b\nc"]}
        for name, (ours, peer) in found.items()
    ]
    told = service_page.page(records)
    for line in (
        "| overhead, JSON, forward backward, overhead ms | 0.2 [0.1, 0.3] of 15 |",
        "| idle milliseconds | 0.2 [0.1, 0.3] of 15 | 0.1 [0.1, 0.3] of 15 |",
        "| tiny, seconds | 0.2 [0.1, 0.3] of 15 | 1 [0.1, 0.3] of 15 | 5 x |",
        "| kills, the server | 7 |",
        "| recovery seconds, worst | 4 |",
        "| memory after 4 minutes | 103 MiB |",
        "| growth over the second half | +2.00 % |",
        "| native | 10 | 20 |",
        "- a \\| b c",
    ):
        assert line in told.splitlines(), line
    assert "not measured" not in told


@pytest.mark.parametrize("name", service_page.ROWS)
def test_every_row_of_the_service_describes_itself(name):
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__
    assert module.ROW.name == name
    assert list(signature(module.measured).parameters)[:2] == ["settings", "floor"]


def test_a_row_may_take_numbers_of_its_own(monkeypatch, capsys):
    def measured(settings, floor, *, kills=200):
        return Outcome(float(kills), {}, {})

    row = Row(name="made-up", work="work", peer="peer", target=0.0)
    monkeypatch.setattr(sys, "argv", ["made-up", "--json", "--threads", "1", "--kills", "7"])
    main(row, measured, kills="how many")
    assert json.loads(capsys.readouterr().out)["ratio"] == 7.0
