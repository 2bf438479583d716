"""Conformance, lines 67 to 72: older clients, further readings, cancelling, downloads and written programs."""

import numpy as np
import pytest
import torch
from peft import PeftModel
from tinker import types
from transformers import AutoModelForCausalLM

from tests.service.faces.tinker.programs import (
    adam,
    batch,
    datum,
    http_of,
    made,
    prompt,
    rest_of,
    retrieved,
    sequences,
    session,
)

ONE = types.SamplingParams(max_tokens=1)


def test_67_clients_from_before_protobuf(http):
    model = made(http)
    one = {
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": [65, 66]}]},
        "loss_fn_inputs": {
            "target_tokens": {"data": [66, 67], "dtype": "int64"},
            "weights": {"data": [1.0, 0.5], "dtype": "float32"},
        },
    }
    form = {"data": [one], "loss_fn": "cross_entropy"}
    trained = http.post("/forward_backward", json={"model_id": model, "seq_id": 1, "forward_backward_input": form})
    read = http.post("/forward", json={"model_id": model, "seq_id": 2, "forward_input": form})
    told = [retrieved(http, answer.json()["request_id"]) for answer in (trained, read)]
    assert told[0]["loss_fn_outputs"] == told[1]["loss_fn_outputs"]
    assert told[0]["loss_fn_outputs"][0]["logprobs"]["shape"] == [2]
    body = {"session_id": session(http), "sampling_session_seq_id": 0, "base_model": "tiny"}
    sampler = http.post("/create_sampling_session", json=body).json()["sampling_session_id"]
    ask = {
        "sampling_session_id": sampler,
        "seq_id": 0,
        "num_samples": 2,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [65, 66]}]},
        "sampling_params": {"max_tokens": 3},
        "prompt_logprobs": True,
        "topk_prompt_logprobs": 2,
    }
    drawn = retrieved(http, http.post("/asample", json=ask).json()["request_id"])
    assert len(drawn["sequences"]) == 2
    assert drawn["prompt_logprobs"][0] is None
    assert len(drawn["topk_prompt_logprobs"][1]) == 2


@pytest.fixture
def sampler(sdk):
    return sdk.create_sampling_client(base_model="tiny").result()


@pytest.fixture(scope="module")
def whole(reference):
    """[T, V] of one sequence."""
    return reference(torch.tensor([sequences()[0]])).logits[0].log_softmax(-1).detach().numpy()


def test_68_the_likeliest_tokens_of_a_sample(sampler):
    drawn = sampler.sample(prompt(), 1, types.SamplingParams(max_tokens=5, temperature=0), topk_sample_logprobs=3)
    (one,) = drawn.result().sequences
    assert [len(row) for row in one.topk_logprobs] == [3] * len(one.tokens)
    assert [row[0][0] for row in one.topk_logprobs] == one.tokens
    assert np.allclose([row[0][1] for row in one.topk_logprobs], one.logprobs, atol=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_68_tokens_asked_about_in_a_prompt(sampler, whole, sparse):
    ids = torch.full((11, 3), -1, dtype=torch.int64)
    ids[4, 0], ids[9, 0], ids[9, 2] = 7, 8, 9
    make = (lambda t: types.TensorData.from_torch_sparse(t, pad_value=-1)) if sparse else types.TensorData.from_torch
    read = sampler.sample(prompt(*sequences()[0]), 1, ONE, target_prompt_logprobs=make(ids)).result()
    told = read.target_prompt_logprobs
    assert (told.sparse_crow_indices is not None) == sparse
    found = told.to_torch().numpy()
    assert found.shape == (11, 3)
    assert np.allclose(found[[4, 9, 9], [0, 0, 2]], [whole[4, 7], whole[9, 8], whole[9, 9]], atol=1e-5)
    assert np.count_nonzero(found) == 3


def test_68_alternatives_to_a_prompts_tokens(sampler, whole):
    tokens = prompt(*sequences()[0])
    read = sampler.sample(tokens, 1, ONE, prompt_alt_tokens_k=4).result().prompt_alt_tokens
    ids, logprobs = read.tokens.to_numpy(), read.logprobs.to_numpy()
    assert ids.shape == logprobs.shape == (11, 4)
    assert np.allclose(logprobs, np.take_along_axis(whole[:-1], ids, axis=1), atol=1e-5)


def test_68_only_the_end_of_a_prompt(sampler):
    tokens = prompt(*sequences()[0])
    read = sampler.compute_logprobs(tokens, prompt_logprobs_last_n=3).result()
    assert read[:9] == [None] * 9
    assert read[9:] == sampler.compute_logprobs(tokens).result()[9:]


def test_69_a_sample_is_cancelled(http, shared):
    body = {"session_id": session(http), "sampling_session_seq_id": 0, "base_model": "tiny"}
    sampler = http.post("/create_sampling_session", json=body).json()["sampling_session_id"]
    ask = {"sampling_session_id": sampler, "seq_id": 0, "prompt": {"chunks": [{"tokens": [65]}]}}
    with shared.held():
        request = {"request_id": http.post("/asample", json=ask).json()["request_id"]}
        assert http.post("/cancel_future", json=request).status_code == 204
        assert retrieved(http, request["request_id"])["category"] == "user"
    assert http.post("/cancel_future", json={"request_id": "nobody"}).status_code == 204


def test_70_weights_are_downloaded_and_loaded_by_peft(shared, training, http, tiny_model, tmp_path):
    training.forward_backward(batch(), "cross_entropy")
    training.optim_step(adam())
    path = training.save_weights_external("out").result().path
    run = training.get_info().model_id
    assert path == f"tinker://{run}/external_weights/out"
    rest = rest_of(shared)
    (listed,) = rest.list_checkpoints(run).result().checkpoints
    assert (listed.checkpoint_id, listed.checkpoint_type) == ("external_weights/out", "external")
    urls = rest.get_external_weights_urls(path).result().urls
    for file, url in urls.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(http.get(url, headers={"X-API-Key": ""}).read())
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype="float32"), tmp_path)
    tokens = sequences()[0]
    read = theirs(torch.tensor([tokens[:-1]])).logits[0].log_softmax(-1)
    expected = read.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].detach().numpy()
    ours = training.forward([datum(tokens)], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].to_numpy()
    assert np.allclose(ours, expected, atol=1e-4)
    assert http.get("/external_weights/nobody/adapter_config.json").status_code == 404


def test_70_what_is_public_is_read_by_others(training, shared):
    path = training.save_weights_for_sampler("shared").result().path
    others = {"session_id": None, "sampling_session_seq_id": 0, "model_path": path}
    with http_of(shared, shared.other_key) as other:
        others["session_id"] = session(other)
        assert other.post("/create_sampling_session", json=others).status_code == 404
        rest_of(shared).publish_checkpoint_from_tinker_path(path).result()
        assert other.post("/create_sampling_session", json=others).status_code == 200
        rest_of(shared).unpublish_checkpoint_from_tinker_path(path).result()
        assert other.post("/weights_info", json={"tinker_path": path}).status_code == 404


def test_71_more_than_the_loss_is_told(training):
    drawn = [datum(tokens, logprobs=[-5.0] * 11, advantages=[1.0] * 11) for tokens in sequences()]
    metrics = training.forward_backward(drawn, "importance_sampling").result().metrics
    assert metrics["tokens:sum"] == 44
    assert metrics["ratio:max"] > 0
    step = training.optim_step(adam()).result().metrics
    assert step["grad_norm"] > 0
    assert step["skipped"] == 0
