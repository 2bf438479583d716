"""Conformance, lines 30 to 40: checkpoints, snapshots, several clients, and requests that come twice."""

import pickle
import threading

import numpy as np
import pytest
import tinker
from tinker import types

from tests.service.faces.tinker.programs import (
    PROTOBUF,
    adam,
    batch,
    datum,
    in_protobuf,
    made,
    prompt,
    retrieved,
    sdk_of,
    sent,
    sequences,
    session,
)

DRAWING = types.SamplingParams(max_tokens=8, seed=5)


def steps(training, count, start=0):
    """The losses of so many steps."""
    done = []
    for step in range(start, start + count):
        done.append(training.forward_backward(batch(2, seed=step), "cross_entropy"))
        training.optim_step(adam())
    return [one.result().metrics["loss:sum"] for one in done]


def read(training, tokens=None):
    found = training.forward([datum(tokens or sequences()[0])], "cross_entropy").result()
    return found.loss_fn_outputs[0]["logprobs"].to_numpy()


def test_30_training_goes_on_from_a_checkpoint(sdk):
    whole = sdk.create_lora_training_client("tiny", rank=4, seed=3).result()
    steps(whole, 3)
    path = whole.save_state("middle").result().path
    expected = steps(whole, 3, start=3)
    resumed = sdk.create_training_client_from_state_with_optimizer(path).result()
    assert steps(resumed, 3, start=3) == expected
    assert np.array_equal(read(resumed), read(whole))
    fresh = sdk.create_training_client_from_state(path).result()
    losses = steps(fresh, 3, start=3)
    assert losses[0] == expected[0]
    assert losses[2] != expected[2]


def test_30_a_checkpoint_is_taken_up_in_place(training):
    steps(training, 2)
    path = training.save_state("here").result().path
    before = read(training)
    steps(training, 2)
    assert not np.array_equal(read(training), before)
    with pytest.warns(FutureWarning):
        training.load_state_with_optimizer(path).result()
    assert np.array_equal(read(training), before)


def test_31_a_snapshot_holds_the_steps_before_it_and_no_others(training):
    steps(training, 1)
    expected = read(training)
    saved = training.save_weights_and_get_sampling_client().result()
    promised = [training.forward_backward(batch(), "cross_entropy"), training.optim_step(adam())]
    logprobs = saved.compute_logprobs(prompt(*sequences()[0])).result()
    [one.result() for one in promised]
    assert np.allclose(logprobs[1:], expected, atol=1e-5)


def test_32_snapshots_do_not_change(training):
    samplers, before = [], []
    for step in range(3):
        steps(training, 1, start=step)
        samplers.append(training.save_weights_and_get_sampling_client().result())
        before.append(samplers[-1].sample(prompt(), 2, DRAWING).result())
    after = [sampler.sample(prompt(), 2, DRAWING).result() for sampler in samplers]
    for one, other in zip(before, after, strict=True):
        assert [s.tokens for s in one.sequences] == [s.tokens for s in other.sequences]
        assert [s.logprobs for s in one.sequences] == [s.logprobs for s in other.sequences]
    assert before[0].sequences[0].logprobs != before[2].sequences[0].logprobs


def test_33_two_clients_do_not_touch_each_other(sdk, shared):
    alone = [steps(sdk.create_lora_training_client("tiny", rank=rank, seed=3).result(), 4) for rank in (4, 8)]
    together: dict[int, list[float]] = {}

    def train(rank):
        with sdk_of(shared) as own:
            together[rank] = steps(own.create_lora_training_client("tiny", rank=rank, seed=3).result(), 4)

    threads = [threading.Thread(target=train, args=(rank,)) for rank in (4, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[4], together[8]] == alone


def test_34_what_fails_is_told_and_the_next_goes_on(training):
    beyond = [datum([65, 10_000_000, 66])]
    failing = training.forward_backward(beyond, "cross_entropy")
    going_on = training.forward_backward(batch(), "cross_entropy")
    with pytest.raises(tinker.RequestFailedError) as caught:
        failing.result()
    assert caught.value.category.value == "user"
    assert going_on.result().metrics["loss:sum"] > 0
    with pytest.raises(tinker.BadRequestError):
        training.forward_backward(batch(), "cross_entropie").result()
    assert training.optim_step(adam()).result().metrics["policy_version"] == 1


def test_35_a_request_that_comes_twice_is_carried_out_once(http):
    owner = session(http)
    model = made(http, owner=owner)
    first, second = (sent(http, model, 1, batch()).json() for _ in range(2))
    assert first == second
    step = {"model_id": model, "seq_id": 2, "adam_params": {}}
    acks = [http.post("/optim_step", json=step).json() for _ in range(3)]
    assert acks[0] == acks[1] == acks[2]
    again = http.post("/optim_step", json={**step, "seq_id": 3}).json()
    assert retrieved(http, again["request_id"])["metrics"]["policy_version"] == 2
    saves = [http.post("/save_weights", json={"model_id": model, "seq_id": 4, "path": "once"}).json() for _ in range(2)]
    assert saves[0] == saves[1]
    assert retrieved(http, saves[0]["request_id"])["path"] == f"tinker://{model}/weights/once"


def test_35_sessions_models_samplers_and_samples_are_made_once(http):
    key = {"X-Idempotency-Key": "one"}
    ids = {http.post("/create_session", json={}, headers=key).json()["session_id"] for _ in range(2)}
    assert len(ids) == 1
    owner = ids.pop()
    assert made(http, owner=owner) == made(http, owner=owner)
    body = {"session_id": owner, "sampling_session_seq_id": 0, "base_model": "tiny"}
    samplers = [http.post("/create_sampling_session", json=body).json()["sampling_session_id"] for _ in range(2)]
    assert samplers[0] == samplers[1]
    ask = {
        "sampling_session_id": samplers[0],
        "seq_id": 0,
        "num_samples": 2,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [65, 66]}]},
        "sampling_params": {"max_tokens": 4},
    }
    acks = [http.post("/asample", json=ask).json() for _ in range(2)]
    assert acks[0] == acks[1]
    assert http.post("/asample", json={**ask, "num_samples": 3}).status_code == 400


def test_36_an_answer_can_be_read_again(http):
    request = sent(http, made(http), 1, batch()).json()["request_id"]
    answers = [in_protobuf(http, request) for _ in range(2)]
    assert answers[0].headers["content-type"] == PROTOBUF
    assert answers[0].content == answers[1].content


def test_37_stable_reinforce_and_spans_are_taken(training):
    tokens = sequences()[0]
    one = datum(tokens, logprobs=[-5.0] * 11, advantages=[1.0] * 11)
    spans = [types.PromptProvenanceSpan(sequence_id="s", offset=0, length=11)]
    told = {"model_input_spans": spans, "loss_fn_input_spans": spans}
    one = types.Datum(model_input=one.model_input, loss_fn_inputs=one.loss_fn_inputs, **told)
    stable = training.forward_backward([one], "stable_reinforce").result()
    cispo = training.forward_backward([one], "cispo").result()
    assert stable.metrics["loss:sum"] == cispo.metrics["loss:sum"]


def test_38_zeros_do_not_count_and_are_read_all_the_same(training):
    tokens = sequences()[0]
    weights = [0.0] * 6 + [1.0] * 5
    done = training.forward_backward([datum(tokens, weights=weights)], "cross_entropy").result()
    logprobs = done.loss_fn_outputs[0]["logprobs"].to_numpy()
    assert (logprobs < 0).all()
    assert done.metrics["loss:sum"] == pytest.approx(-logprobs[6:].sum(), rel=1e-5)


def test_39_two_hundred_samples_are_polled_together(sdk, http):
    sampler = sdk.create_sampling_client(base_model="tiny").result()
    promised = [sampler.sample(prompt(65 + i % 20), 1, types.SamplingParams(max_tokens=3)) for i in range(200)]
    assert sum(len(one.result().sequences) for one in promised) == 200
    unknown = {"target": {"type": "sampling_session", "sampling_session_id": "nobody:sample:0"}, "timeout": 0}
    answer = http.post("/retrieve_futures", json=unknown)
    assert (answer.status_code, answer.json()["completions"]) == (200, [])


def test_40_copies_of_a_sampling_client_number_apart(sdk, http, shared, monkeypatch):
    monkeypatch.setenv("TINKER_API_KEY", shared.key)
    sampler = sdk.create_sampling_client(base_model="tiny").result()
    own = sampler.sample(prompt(), 1, DRAWING).result()
    handed = tinker.SamplingClient.from_sampler_handle(sampler.get_sampler_handle(), api_key=shared.key)
    pickled = pickle.loads(pickle.dumps(sampler))
    for copy in (handed, pickled):
        assert copy.sample(prompt(), 1, DRAWING).result().sequences[0].tokens == own.sequences[0].tokens
    counters = {handed._cloned_sampler_id, pickled._cloned_sampler_id}
    assert len(counters) == 2
    assert min(counters) >= 1
