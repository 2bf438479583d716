"""Exactly once across kill -9: the server dies, and its clients go on."""

import threading

import numpy as np

from tests.service.faces.tinker.programs import (
    adam,
    batch,
    datum,
    http_of,
    made,
    retrieved,
    sdk_of,
    sent,
    sequences,
    session,
)

REFUSED = 3
"""The number of a request that never was taken in."""


def test_62_after_a_kill_all_that_was_acknowledged_is_there_and_nothing_is_done_twice(spawned):
    server = spawned()
    with http_of(server) as http:
        model = made(http, seed=3)
        trained = [ack.json()["request_id"] for ack in asked(http, model)]
        sampler, drawn, read = sampled(http)
    server.kill()
    server.start()
    with http_of(server) as http:
        assert [ack.json()["request_id"] for ack in asked(http, model)] == trained
        assert sent(http, model, 2, batch(2)).status_code == 400
        told = [retrieved(http, id) for id in trained]
        assert told[2]["metrics"]["policy_version"] == 1
        assert told[3]["path"] == f"tinker://{model}/weights/kept"
        assert told[4]["sampling_session_id"] == f"{model.partition(':')[0]}:sample:0"
        step = http.post("/optim_step", json={"model_id": model, "seq_id": 7, "adam_params": {}})
        assert retrieved(http, step.json()["request_id"])["metrics"]["policy_version"] == 2
        assert finished(http, sampler, drawn) >= set(drawn)
        assert all(len(retrieved(http, id)["sequences"][0]["tokens"]) == 40 for id in drawn)
        assert http.post("/retrieve_future", json={"request_id": read}).status_code == 410


def test_63_a_program_trains_through_a_kill_to_the_weights_of_an_undisturbed_one(spawned):
    server = spawned()
    undisturbed = learnt(server, lambda: None)

    def kill():
        server.kill()
        threading.Thread(target=server.start).start()

    disturbed = learnt(server, kill)
    assert np.array_equal(disturbed, undisturbed)


def asked(http, model):
    """A step of two calls that arrive in the wrong order, and what is made of it."""
    pin = {"model_id": model, "seq_id": 6, "sampling_session_seq_id": 0}
    return [
        sent(http, model, 2, batch(2, seed=1)),
        sent(http, model, 1, batch(2)),
        http.post("/optim_step", json={"model_id": model, "seq_id": REFUSED + 1, "adam_params": {}}),
        http.post("/save_weights", json={"model_id": model, "seq_id": 5, "path": "kept"}),
        http.post("/save_weights_for_sampler", json=pin),
    ]


def sampled(http):
    """A sampler, requests for eight samples of it, and one whose prompt is read as well."""
    body = {"session_id": session(http), "sampling_session_seq_id": 0, "base_model": "tiny"}
    sampler = http.post("/create_sampling_session", json=body).json()["sampling_session_id"]
    ask = {
        "sampling_session_id": sampler,
        "prompt": {"chunks": [{"tokens": [65, 66]}]},
        "sampling_params": {"max_tokens": 40, "stop": []},
    }
    ids = [http.post("/asample", json={**ask, "seq_id": seq}).json()["request_id"] for seq in range(8)]
    read = http.post("/asample", json={**ask, "seq_id": 8, "prompt_logprobs": True}).json()["request_id"]
    return sampler, ids, read


def finished(http, sampler, ids):
    """What a poller is told of, until it knows all of them."""
    target = {"type": "sampling_session", "sampling_session_id": sampler, "cloned_sampler_id": 0}
    found: set[str] = set()
    cursor = 0
    while not found >= set(ids):
        polled = http.post("/retrieve_futures", json={"target": target, "prev_cursor": cursor}).json()
        found |= {event["request_id"] for event in polled["completions"]}
        assert polled["cursor"] >= cursor
        cursor = polled["cursor"]
    return found


def learnt(server, disturbance):
    """Log-probabilities after eight steps of the SDK, with a disturbance after the third."""
    with sdk_of(server) as sdk:
        training = sdk.create_lora_training_client("tiny", rank=4, seed=3).result()
        promised = []
        for step in range(8):
            promised += [training.forward_backward(batch(2, seed=step), "cross_entropy"), training.optim_step(adam())]
            if step == 2:
                promised[-1].result()
                disturbance()
        assert [one.result() for one in promised][-1].metrics["policy_version"] == 8
        found = training.forward([datum(sequences()[0])], "cross_entropy").result()
        return found.loss_fn_outputs[0]["logprobs"].to_numpy()
