"""Exactly once across kill -9: the server dies, and its clients go on."""

import threading

import numpy as np
from tinker import types

from tests.service.faces.tinker.programs import (
    adam,
    batch,
    datum,
    http_of,
    made,
    prompt,
    retrieved,
    sdk_of,
    sent,
    sequences,
    session,
)


def test_62_what_was_acknowledged_is_there_after_a_kill_and_nothing_is_done_twice(spawned):
    server = spawned()
    with http_of(server) as http:
        model = made(http, seed=3)
        acks = [sent(http, model, 2, batch(2, seed=1)), sent(http, model, 1, batch(2))]
        acks += [http.post("/optim_step", json={"model_id": model, "seq_id": 4, "adam_params": {}})]  # 3 was refused
        acks += [http.post("/save_weights", json={"model_id": model, "seq_id": 5, "path": "kept"})]
        pin = {"model_id": model, "seq_id": 6, "sampling_session_seq_id": 0}
        acks += [http.post("/save_weights_for_sampler", json=pin)]
        ids = [ack.json()["request_id"] for ack in acks]
    server.kill()
    server.start()
    with http_of(server) as http:
        again = [sent(http, model, 2, batch(2, seed=1)), sent(http, model, 1, batch(2))]
        again += [http.post("/optim_step", json={"model_id": model, "seq_id": 4, "adam_params": {}})]
        again += [http.post("/save_weights", json={"model_id": model, "seq_id": 5, "path": "kept"})]
        again += [http.post("/save_weights_for_sampler", json=pin)]
        assert [ack.json()["request_id"] for ack in again] == ids
        assert sent(http, model, 2, batch(2)).status_code == 400
        told = [retrieved(http, id) for id in ids]
        assert told[2]["metrics"]["policy_version"] == 1
        assert told[3]["path"] == f"tinker://{model}/weights/kept"
        assert told[4]["sampling_session_id"] == f"{model.partition(':')[0]}:sample:0"
        step = http.post("/optim_step", json={"model_id": model, "seq_id": 7, "adam_params": {}})
        assert retrieved(http, step.json()["request_id"])["metrics"]["policy_version"] == 2


def test_62_samples_under_way_are_drawn_after_a_kill(spawned):
    server = spawned()
    with http_of(server) as http:
        body = {"session_id": session(http), "sampling_session_seq_id": 0, "base_model": "tiny"}
        sampler = http.post("/create_sampling_session", json=body).json()["sampling_session_id"]
        ask = {
            "sampling_session_id": sampler,
            "prompt": {"chunks": [{"tokens": [65, 66]}]},
            "sampling_params": {"max_tokens": 40, "stop": []},
        }
        ids = [http.post("/asample", json={**ask, "seq_id": seq}).json()["request_id"] for seq in range(8)]
        read = http.post("/asample", json={**ask, "seq_id": 8, "prompt_logprobs": True}).json()["request_id"]
    server.kill()
    server.start()
    with http_of(server) as http:
        target = {"type": "sampling_session", "sampling_session_id": sampler, "cloned_sampler_id": 0}
        finished: set[str] = set()
        cursor = 0
        while not finished >= set(ids):
            polled = http.post("/retrieve_futures", json={"target": target, "prev_cursor": cursor}).json()
            finished |= {event["request_id"] for event in polled["completions"]}
            assert polled["cursor"] >= cursor
            cursor = polled["cursor"]
        assert all(len(retrieved(http, id)["sequences"][0]["tokens"]) == 40 for id in ids)
        assert http.post("/retrieve_future", json={"request_id": read}).status_code == 410


def test_63_a_program_trains_through_kills_to_the_weights_of_an_undisturbed_one(spawned):
    server = spawned()
    undisturbed = trained(server, lambda: None)
    kills = iter([server.kill, server.kill])

    def kill():
        next(kills)()
        threading.Thread(target=server.start).start()

    disturbed = trained(server, kill)
    assert np.array_equal(disturbed, undisturbed)
    drawn = (
        sdk_of(server).create_sampling_client(base_model="tiny").sample(prompt(), 1, types.SamplingParams(max_tokens=3))
    )
    assert drawn.result().sequences


def trained(server, disturbance):
    """Log-probabilities after eight steps of the SDK, with a disturbance after the third and the sixth."""
    with sdk_of(server) as sdk:
        training = sdk.create_lora_training_client("tiny", rank=4, seed=3).result()
        promised = []
        for step in range(8):
            promised += [training.forward_backward(batch(2, seed=step), "cross_entropy"), training.optim_step(adam())]
            if step in (2, 5):
                promised[-1].result()
                disturbance()
        assert [one.result() for one in promised][-1].metrics["policy_version"] == 8
        found = training.forward([datum(sequences()[0])], "cross_entropy").result()
        return found.loss_fn_outputs[0]["logprobs"].to_numpy()
