"""Operations over HTTP: each number once, JSON and frames alike, and promises that are kept."""

import json
import time

import numpy as np
import pytest

from fettle.calls import ForwardBackward, OptimStep, Pin, Restore, Save, call_tree
from fettle.config import AdamW, CausalLM
from fettle.errors import BusyError, StateError, StorageError
from fettle.frames import batch_tree, packed, plain, result_of
from fettle.service.wire import status_of
from fettle.types import datum

DATA = [datum([5, 9, 41, 7, 11], [0, 0, 1, 1, 1]), datum([5, 8, 2], [0, 1, 1])]
BATCH = {"data": [{"tokens": d.tokens.tolist(), "loss_mask": d.loss_mask.tolist()} for d in DATA]}
LOSS = {"loss": {"type": "causal_lm"}}
ADAM = AdamW(learning_rate=0.01)


@pytest.fixture
def run(client):
    return client.new_run(lora={"rank": 4})


def computed(client, run, body, verb="forward_backward"):
    return client.said("POST", f"/v1/runs/{run}/{verb}?wait=30", body)["result"]


def test_a_list_a_ragged_batch_and_a_frame_are_the_same_batch(client, run):
    ragged = plain(batch_tree(DATA))
    listed = computed(client, run, {**BATCH, **LOSS}, "forward")
    assert computed(client, run, {"data": ragged, **LOSS}, "forward")["loss"] == listed["loss"]
    framed = client.framed("POST", f"/v1/runs/{run}/forward?wait=30", {"data": batch_tree(DATA), **LOSS})
    result = result_of(framed["result"])
    assert result.loss == listed["loss"]
    assert np.concatenate(result.logprobs).tolist() == pytest.approx(listed["logprobs"]["values"])


def test_a_frame_is_far_smaller_than_json():
    rng = np.random.default_rng(0)
    floats = rng.normal(size=4096).astype(np.float32)
    large = [datum(rng.integers(0, 150_000, 4096).tolist(), [0] + [1] * 4095, sampling_logprobs=floats)] * 4
    tree = call_tree(ForwardBackward(large, CausalLM()))
    assert len(json.dumps(plain(tree))) > 2.5 * len(packed(tree))


def test_operations_sent_again_are_carried_out_once(client, run):
    calls = [call_tree(ForwardBackward(DATA, CausalLM())), call_tree(OptimStep(ADAM))]
    for _ in range(3):
        for seq, call in enumerate(calls):
            said = {"incarnation": 0, "seq": seq, "call": call}
            assert client.framed("POST", f"/v1/runs/{run}/operations", said)["id"] == f"{run}.0.{seq}"
    client.result(f"{run}.0.1")
    told = client.said("GET", f"/v1/runs/{run}")
    assert (told["version"], told["next_seq"]) == (1, 2)


def test_a_number_used_for_something_else_is_refused(client, run):
    said = {"incarnation": 0, "seq": 0, "call": plain(call_tree(Pin()))}
    client.said("POST", f"/v1/runs/{run}/operations", said)
    other = {"incarnation": 0, "seq": 0, "call": plain(call_tree(OptimStep(ADAM)))}
    assert client.said("POST", f"/v1/runs/{run}/operations", other, status=409)["error"]["code"] == "sequence"


def test_operations_take_effect_in_the_order_of_their_numbers(client, run):
    twin = client.new_run(lora={"rank": 4})
    steps = [{**BATCH, **LOSS}, {"optimizer": {"learning_rate": 0.01}}] * 3
    verbs = ["forward_backward", "optim_step"] * 3
    for seq in (3, 0, 5, 1, 4, 2):
        client.said("POST", f"/v1/runs/{run}/{verbs[seq]}", {**steps[seq], "incarnation": 0, "seq": seq})
    results = [client.result(f"{run}.0.{seq}") for seq in range(6)]
    in_order = [computed(client, twin, body, verb) for verb, body in zip(verbs, steps, strict=True)]
    assert [r["loss"] for r in results[::2]] == [r["loss"] for r in in_order[::2]]
    assert [r["grad_norm"] for r in results[1::2]] == [r["grad_norm"] for r in in_order[1::2]]


def test_a_failing_operation_has_its_error_and_the_next_one_runs(client, run):
    bad = {"data": [{"tokens": [5, 10**6]}], **LOSS}
    first = client.said("POST", f"/v1/runs/{run}/forward_backward", bad)
    told = client.said("GET", f"/v1/futures/{first['id']}?wait=30")
    assert (told["status"], told["error"]["code"]) == ("failed", "loss_input")
    assert computed(client, run, {**BATCH, **LOSS})["num_tokens"] == 5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({**BATCH, "loss": {"type": "causal"}}, "causal_lm, "),
        ({**BATCH, "loss": {"type": "causallm"}}, "did you mean causal_lm"),
        ({**BATCH, "loss": {"type": "ppo", "clip_lo": 0.1}}, "did you mean"),
        ({**BATCH}, "loss"),
        ({"data": "text", **LOSS}, "data must be"),
        ({"data": [{"tokens": ["a"]}], **LOSS}, "data[0].tokens"),
        ({"data": [{"tokens": [1, 2], "weight": 3}], **LOSS}, "data[0]"),
        ({"data": [{"tokens": [1, 2], "loss_mask": [0, 1, 1]}], **LOSS}, "loss_mask has shape"),
        ({"batch_data": {"input_ids": [[1, 2]]}, "loss_fn": "causal"}, "did you mean causal_lm"),
        ({"batch_data": {"input_ids": [[1, 2]]}, "loss_fn": "dpo", "loss_kwargs": {"betta": 1}}, "did you mean beta"),
        ({"batch_data": [1], "loss_fn": "causal_lm"}, "batch_data must be"),
        ({**BATCH, **LOSS, "seq": -1}, "seq"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence_that_lists_what_can(client, run, body, said):
    response = client.request("POST", f"/v1/runs/{run}/forward_backward", json=body)
    assert response.status_code == 400
    assert said in response.json()["detail"]


def test_documented_losses_are_told_by_their_documented_names(client, run):
    rows = {"input_ids": [[5, 9, 41, 7], [5, 8, 2, 3]], "attention_mask": [[1, 1, 1, 1], [1, 1, 1, 0]]}
    told = computed(client, run, {"batch_data": rows, "loss_fn": "causal_lm"})
    assert told["loss"] == pytest.approx(told["metrics"]["nll"])


PAIR = {
    "chosen_input_ids": [[5, 9, 41, 7]],
    "rejected_input_ids": [[5, 9, 8, 2]],
    "chosen_attention_mask": [[1, 1, 1, 1]],
    "rejected_attention_mask": [[1, 1, 1, 1]],
    "prompt_length": [2],
}
COMPARED = {"batch_data": PAIR, "loss_fn": "dpo", "loss_kwargs": {"reference_model": "tiny"}}


def test_a_documented_loss_reads_its_reference_which_must_be_a_served_model(client, run):
    assert computed(client, run, COMPARED)["loss"] == pytest.approx(np.log(2), rel=1e-5)
    client.said("POST", f"/v1/runs/{run}/optim_step", {"learning_rate": 0.05})
    assert computed(client, run, COMPARED)["loss"] < np.log(2)
    unserved = {**COMPARED, "loss_kwargs": {"reference_model": "/etc"}}
    assert (
        "no model is served as '/etc'"
        in client.said("POST", f"/v1/runs/{run}/forward_backward", unserved, status=400)["detail"]
    )


def test_a_documented_loss_reads_the_policy_by_operations_of_their_own(client, run):
    rollout = {
        "input_ids": [[5, 9, 41, 7], [5, 9, 8, 2]],
        "attention_mask": [[1] * 4] * 2,
        "loss_mask": [[0, 0, 1, 1], [0, 0, 1, 1]],
        "rewards": [1.0, 0.0],
        "values": [[0.0] * 4] * 2,
        "old_log_probs": [[0.0, 0.0, -5.0, -5.0]] * 2,
    }
    body = {"batch_data": rollout, "loss_fn": "conservative_ppo", "incarnation": 0, "seq": 0}
    first = client.said("POST", f"/v1/runs/{run}/forward_backward", body)
    assert first["seq"] > 0
    assert client.said("POST", f"/v1/runs/{run}/forward_backward", body)["id"] == first["id"]
    assert client.result(first["id"])["metrics"]["kl_divergence"] == pytest.approx(0, abs=1e-6)
    step = {"learning_rate": 0.01, "incarnation": 0, "seq": first["seq"] + 1}
    assert client.said("POST", f"/v1/runs/{run}/optim_step?wait=30", step)["status"] == "completed"


def test_what_waits_can_be_cancelled_and_uses_up_its_number(client, run):
    waiting = {"incarnation": 0, "seq": 1, "call": plain(call_tree(OptimStep(ADAM)))}
    id = client.said("POST", f"/v1/runs/{run}/operations", waiting)["id"]
    assert client.said("DELETE", f"/v1/futures/{id}") == {"cancelled": True}
    assert client.said("GET", f"/v1/futures/{id}")["error"]["code"] == "cancelled"
    computed(client, run, {**BATCH, **LOSS, "seq": 0})
    assert client.said("GET", f"/v1/runs/{run}")["next_seq"] == 2


def test_an_answer_that_was_acknowledged_is_gone(client, run):
    id = client.said("POST", f"/v1/runs/{run}/forward_backward?wait=30", {**BATCH, **LOSS})["id"]
    client.said("POST", f"/v1/futures/{id}/acknowledge")
    assert client.said("GET", f"/v1/futures/{id}", status=404)["error"]["code"] == "not_found"


def test_a_promise_is_its_tenants(shared, client, run):
    id = client.said("POST", f"/v1/runs/{run}/forward_backward?wait=30", {**BATCH, **LOSS})["id"]
    with shared.client(shared.other_key) as other:
        foreign = other.said("GET", f"/v1/futures/{id}", status=404)["detail"]
        unknown = other.said("GET", "/v1/futures/nothing", status=404)["detail"]
        assert foreign.replace(id, "") == unknown.replace("nothing", "")
        other.said("DELETE", f"/v1/futures/{id}", status=404)


def test_whoever_numbers_operations_saves_and_closes_like_any_other(client, run):
    saved = {"incarnation": 0, "seq": 0, "call": plain(call_tree(Save("one")))}
    result = client.result(client.said("POST", f"/v1/runs/{run}/operations", saved)["id"])
    assert (result["name"], result["path"]) == ("one", f"fettle://{run}/weights/one")
    again = client.said("POST", f"/v1/runs/{run}/operations", saved)
    assert client.result(again["id"]) == result
    close = {"incarnation": 0, "seq": 1, "call": {"type": "close"}}
    client.result(client.said("POST", f"/v1/runs/{run}/operations", close)["id"])
    assert client.said("GET", f"/v1/runs/{run}")["state"] == "completed"
    assert client.said("POST", f"/v1/runs/{run}/operations", close)["id"] == f"{run}.0.1"


@pytest.mark.parametrize("call", [{"type": "create"}, {"type": "load", "checkpoint": "/etc", "optimizer": True}, {}])
def test_a_run_is_not_begun_by_an_operation(client, run, call):
    said = {"incarnation": 0, "seq": 0, "call": call}
    assert client.request("POST", f"/v1/runs/{run}/operations", json=said).status_code == 400


def test_a_checkpoint_is_named_by_its_id_and_never_by_a_folder(client, run, shared):
    folder = str(shared.service.settings.state)
    call = {"type": "restore", "checkpoint": folder, "optimizer": False}
    client.said("POST", f"/v1/runs/{run}/operations", {"incarnation": 0, "seq": 0, "call": call}, status=404)


def test_what_a_reference_says_is_charged_to_the_run_as_its_own_readings_are(client, run):
    computed(client, run, COMPARED)
    counted = {row["kind"]: row for row in client.said("GET", f"/v1/usage?run={run}")["rows"]}
    assert (counted["forward"]["tokens"], counted["forward_backward"]["tokens"]) == (8, 8)
    assert counted["forward"]["seconds"] > 0


def test_taking_a_checkpoint_up_again_by_number_is_answered_as_before_though_it_is_gone(client, run):
    client.said("POST", f"/v1/runs/{run}/save_state?wait=30", {"name": "gone"})
    other = client.new_run(lora={"rank": 4})
    said = {"incarnation": 0, "seq": 0, "call": plain(call_tree(Restore(f"fettle://{run}/weights/gone", True)))}
    first = client.said("POST", f"/v1/runs/{other}/operations?wait=30", said)
    client.said("DELETE", f"/v1/checkpoints/{run}/weights/gone")
    assert client.said("POST", f"/v1/runs/{other}/operations?wait=30", said) == first


def test_a_sample_that_is_refused_keeps_no_weights(served, monkeypatch):
    with served.client() as client:
        run, pins = client.new_run(), served.service.broker.pins

        def refused(*_, **__):
            raise BusyError("too many draws wait", 1.0)

        monkeypatch.setattr(served.service, "draw", refused)
        client.said("POST", f"/v1/runs/{run}/sample", {"prompts": ["one"]}, status=429)
        assert not pins()
        client.said("POST", f"/v1/runs/{run}/sample", {"prompts": ["one"], "seq": 1}, status=429)
        assert len(pins()) == 1


def test_a_cancelling_is_told_once_it_is_on_the_disk(served, monkeypatch):
    with served.client() as client:
        run = client.new_run()
        early = client.said("POST", f"/v1/runs/{run}/optim_step", {"seq": 5, "empty": True})["id"]
        promise, waited = served.service.broker.promise(early), []
        real = promise.durable

        async def durable():
            await real()
            waited.append(promise.position)

        monkeypatch.setattr(promise, "durable", durable)
        assert client.said("DELETE", f"/v1/futures/{early}") == {"cancelled": True}
        assert waited == [promise.position]
        assert client.said("DELETE", f"/v1/futures/{early}") == {"cancelled": False}
        assert waited == [promise.position]


def test_a_service_whose_journal_has_failed_is_not_ready(served):
    with served.client() as client:
        deadline = time.monotonic() + 30
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
        served.service.broker._journal.failed = StorageError("the disk is gone")
        client.said("GET", "/readyz", status=503)


def test_a_step_that_there_are_no_gradients_for_is_the_fault_of_who_asks(client, run):
    told = client.said("POST", f"/v1/runs/{run}/optim_step?wait=30", {})
    assert told["error"]["code"] == "state"
    assert status_of(StateError("")) == 409
