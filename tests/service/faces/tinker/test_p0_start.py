"""Conformance, lines 1 to 15: a client starts, trains and samples."""

import time

import numpy as np
import pytest
import zstandard
from tinker import types

from fettle.service.faces.tinker import tinker_wire_pb2 as wire
from tests.service.faces.tinker.programs import (
    PROTOBUF,
    adam,
    batch,
    datum,
    in_protobuf,
    made,
    packed,
    prompt,
    rest_of,
    sdk_of,
    sent,
    sequences,
    session,
)
from tests.service.served import serving


def test_01_client_config_is_answered(http, shared):
    answer = http.post("/client/config", json={"sdk_version": "0.38.0"})
    assert answer.status_code == 200
    assert answer.json()["sample_use_retrieve_futures"] is True
    assert rest_of(shared).get_server_capabilities().result().supported_models


def test_02_every_session_is_a_new_one_whose_id_stands_in_an_address(http):
    ids = {session(http) for _ in range(3)}
    assert len(ids) == 3
    assert not set("/?#:~") & set("".join(ids))


def test_03_dynamic_config_is_answered(http):
    assert http.post("/client/dynamic_config", json={"sdk_version": "0.38.0"}).status_code == 200


def test_04_a_model_is_promised_under_the_id_that_clients_compose(http):
    owner = session(http)
    body = {"session_id": owner, "model_seq_id": 5, "base_model": "tiny", "lora_config": {"rank": 4}}
    answer = http.post("/create_model", json={**body, "unheard_of": 1})
    assert answer.status_code == 200
    told = http.post("/retrieve_future", json={"request_id": answer.json()["request_id"]}).json()
    assert told["model_id"] == f"{owner}:train:5"


def test_05_info_names_the_model_as_it_was_asked_for(sdk):
    training = sdk.create_lora_training_client("Qwen/Qwen3-8B", rank=4).result()
    info = training.get_info()
    assert info.model_data.model_name == "Qwen/Qwen3-8B"
    assert info.lora_rank == 4
    assert training.get_tokenizer().decode([65])


@pytest.mark.parametrize("compressed", [False, True])
def test_06_forward_backward_is_read_plain_and_compressed(http, compressed):
    body, headers = packed(made(http), 1, batch()), {"Content-Type": PROTOBUF}
    if compressed:
        body, headers = zstandard.compress(body), {**headers, "Content-Encoding": "zstd"}
    answer = http.post("/forward_backward", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    told = in_protobuf(http, answer.json()["request_id"])
    assert wire.ForwardBackwardOutput.FromString(told.content).metrics["loss:sum"] > 0


def test_07_the_answer_is_protobuf_with_logprobs_of_every_target(http, training):
    data = [datum(tokens) for tokens in sequences(3)]
    told = training.forward_backward(data, "cross_entropy").result().loss_fn_outputs
    assert [one["logprobs"].to_numpy().shape for one in told] == [(11,)] * 3
    assert all(one["logprobs"].dtype == "float32" for one in told)
    answer = in_protobuf(http, sent(http, made(http), 1, data).json()["request_id"])
    assert answer.headers["content-type"] == PROTOBUF


def test_08_metrics_hold_the_loss_and_say_how_parts_are_joined(training):
    metrics = training.forward_backward(batch(), "cross_entropy").result().metrics
    assert metrics["loss:sum"] > 0
    assert all(name.count(":") == 1 for name in metrics)


def test_09_steps_lower_the_loss(training):
    losses = []
    for _ in range(5):
        done = training.forward_backward(batch(), "cross_entropy")
        training.optim_step(adam())
        losses.append(done.result().metrics["loss:sum"])
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 1


def test_10_weights_can_be_sampled_without_a_name(training):
    before = training.save_weights_and_get_sampling_client().result()
    for _ in range(3):
        training.forward_backward(batch(), "cross_entropy")
        training.optim_step(adam())
    after = training.save_weights_and_get_sampling_client().result()
    tokens = prompt(*sequences()[0])
    read = [np.sum(one.compute_logprobs(tokens).result()[1:]) for one in (before, after)]
    assert read[1] > read[0] + 1


def test_11_a_sample_has_as_many_sequences_as_ids(sdk):
    sampler = sdk.create_sampling_client(base_model="tiny").result()
    drawn = sampler.sample(prompt(), 3, types.SamplingParams(max_tokens=4)).result()
    assert len(drawn.sequences) == 3
    assert len({one.sequence_id for one in drawn.sequences}) == 3


def test_12_tokens_have_logprobs_and_a_reason_to_stop(sdk):
    sampler = sdk.create_sampling_client(base_model="tiny").result()
    drawn = sampler.sample(prompt(), 8, types.SamplingParams(max_tokens=9, stop=[40, 41, 42, 43] * 9)).result()
    for one in drawn.sequences:
        assert len(one.tokens) == len(one.logprobs) > 0
        stopped = one.tokens[-1] in (40, 41, 42, 43)
        assert one.stop_reason == ("stop" if stopped else "length")
        assert stopped or len(one.tokens) == 9


def test_13_base_models_and_saved_weights_are_sampled_also_after_a_restart(tmp_path, tiny_model):
    def drawn(sdk, **of):
        sampler = sdk.create_sampling_client(**of).result()
        done = sampler.sample(prompt(), 2, types.SamplingParams(max_tokens=6, seed=5)).result()
        return [one.tokens for one in done.sequences]

    with serving(tmp_path, tiny_model) as first, sdk_of(first) as sdk:
        training = sdk.create_lora_training_client("tiny", rank=4).result()
        training.forward_backward(batch(), "cross_entropy")
        training.optim_step(adam())
        path = training.save_weights_for_sampler("kept").result().path
        assert path == f"tinker://{training.get_info().model_id}/sampler_weights/kept"
        before, base = drawn(sdk, model_path=path), drawn(sdk, base_model="tiny")
    with serving(tmp_path, tiny_model) as second, sdk_of(second, first.key) as sdk:
        assert drawn(sdk, model_path=path) == before != base


def test_14_an_answer_that_is_not_there_is_waited_for(http, shared, monkeypatch):
    monkeypatch.setattr("fettle.service.faces.tinker.futures.HOLD_S", 1.2)
    model = made(http)
    with shared.held():
        asked = http.post("/optim_step", json={"model_id": model, "seq_id": 1, "adam_params": {}})
        began = time.monotonic()
        answer = http.post("/retrieve_future", json={"request_id": asked.json()["request_id"]})
        assert time.monotonic() - began > 1
        assert answer.status_code == 408
        assert answer.json()["type"] == "try_again"


def test_15_fifty_steps_are_sent_ahead(training):
    promised = []
    for _ in range(50):
        promised += [training.forward_backward(batch(1), "cross_entropy"), training.optim_step(adam(1e-3))]
    assert [one.result() for one in promised][-1].metrics["policy_version"] == 50
