"""Conformance, lines 24 to 29: what is drawn, and what is read of prompts."""

import numpy as np
import pytest
import tinker
import torch
from tinker import types

from tests.service.faces.tinker.programs import CONTEXT, adam, batch, datum, prompt, sequences

DRAWING = types.SamplingParams(max_tokens=8, seed=5)


@pytest.fixture
def sampler(training) -> tinker.SamplingClient:
    """Weights that are not those of the base model."""
    training.forward_backward(batch(), "cross_entropy")
    training.optim_step(adam())
    return training.save_weights_and_get_sampling_client().result()


def drawn(sampler, count=1, start=None, **params):
    settings = types.SamplingParams(**{"max_tokens": 8, "seed": 5, **params})
    return sampler.sample(start or prompt(), count, settings).result()


def test_24_a_prompt_is_read_as_training_reads_it(training, sampler):
    tokens = sequences()[0]
    read = sampler.compute_logprobs(prompt(*tokens)).result()
    trained = training.forward([datum(tokens)], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].to_numpy()
    assert read[0] is None
    assert len(read) == len(tokens)
    assert np.allclose(read[1:], trained, atol=1e-5)
    beside = sampler.sample(prompt(*tokens), 1, DRAWING, include_prompt_logprobs=True).result()
    assert beside.prompt_logprobs == read


def test_25_what_is_drawn_has_the_logprobs_that_training_finds(training, sampler):
    (one,) = drawn(sampler).sequences
    tokens = [*prompt().to_ints(), *one.tokens]
    found = training.forward([datum(tokens)], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].to_numpy()
    assert np.allclose(one.logprobs, found[3:], atol=1e-4)


def test_26_seeds_repeat_and_samples_of_one_request_differ(sampler):
    first, again = drawn(sampler, 4, max_tokens=12), drawn(sampler, 4, max_tokens=12)
    assert [one.tokens for one in first.sequences] == [one.tokens for one in again.sequences]
    assert len({tuple(one.tokens) for one in first.sequences}) == 4
    greedy = [drawn(sampler, temperature=0.0, seed=seed).sequences[0] for seed in (1, 2)]
    assert greedy[0].tokens == greedy[1].tokens
    assert max(greedy[0].logprobs) < 0


def test_27_every_form_of_stop(sdk, shared):
    sampler = sdk.create_sampling_client(base_model="tiny").result()
    tokenizer = sampler_tokenizer(shared)
    free = drawn(sampler, stop=[], max_tokens=40).sequences[0]
    assert len(free.tokens) == 40
    third = free.tokens[2]
    first_at = free.tokens.index(third)
    by_id = drawn(sampler, stop=[third], max_tokens=40).sequences[0]
    assert by_id.tokens == free.tokens[: first_at + 1]
    assert by_id.stop_reason == "stop"
    texts = [tokenizer.decode([token]) for token in free.tokens]
    text = next(text for text in texts if text.isascii() and text.strip())
    for stop in (text, [text, "never to be seen"]):
        stopped = drawn(sampler, stop=stop, max_tokens=40).sequences[0]
        assert stopped.stop_reason == "stop"
        assert text in tokenizer.decode(stopped.tokens)
        assert text not in tokenizer.decode(stopped.tokens[:-1])


def test_27_without_stop_a_sample_ends_with_the_models_own_end(sdk, shared):
    end = sampler_tokenizer(shared).eos_token_id
    training = sdk.create_lora_training_client("tiny", rank=4).result()
    taught = [datum([65, 66, 67, 68, end, end], weights=[0, 0, 0, 1, 1])]
    for _ in range(20):
        training.forward_backward(taught, "cross_entropy")
        training.optim_step(adam(3e-2))
    sampler = training.save_weights_and_get_sampling_client().result()
    (one,) = drawn(sampler, temperature=0.0).sequences
    assert (one.tokens, one.stop_reason) == ([end], "stop")
    (going_on,) = drawn(sampler, temperature=0.0, stop=[]).sequences
    assert len(going_on.tokens) == 8


def test_28_without_a_limit_a_sample_ends_with_the_context(sdk):
    sampler = sdk.create_sampling_client(base_model="tiny").result()
    for limit in ({}, {"max_tokens": 10_000}):
        params = types.SamplingParams(seed=1, stop=[], **limit)
        (one,) = sampler.sample(prompt(), 1, params).result().sequences
        assert len(one.tokens) == CONTEXT - 4
        assert one.stop_reason == "length"


def test_29_the_likeliest_tokens_of_a_prompt(sdk, reference):
    tokens = sequences()[0]
    read = (
        sdk.create_sampling_client(base_model="tiny")
        .result()
        .sample(prompt(*tokens), 1, DRAWING, include_prompt_logprobs=True, topk_prompt_logprobs=3)
        .result()
    )
    whole = reference(torch.tensor([tokens])).logits[0].log_softmax(-1)
    assert read.topk_prompt_logprobs[0] is None
    for place, row in enumerate(read.topk_prompt_logprobs[1:]):
        best = whole[place].topk(3)
        assert [token for token, _ in row] == best.indices.tolist()
        assert np.allclose([logprob for _, logprob in row], best.values.detach(), atol=1e-5)


def sampler_tokenizer(server):
    return next(iter(server.service.models)).tokenizer
