"""What is told is what the public SDK reads."""

import math

import numpy as np
import pytest
from tinker.proto.response_conv import deserialize_forward_backward_output, deserialize_sample_response

from fettle.service.faces.tinker import answers, tensors
from fettle.service.faces.tinker.answers import Asked
from fettle.types import Completion, ForwardResult, OptimResult, PromptReading


def forward(*logprobs, **metrics):
    return ForwardResult(1.5, metrics, [np.asarray(row, np.float32) for row in logprobs], 7)


def reading(length=3, k=2):
    rows = np.arange(length * k, dtype=np.float32).reshape(length, k)
    hole = np.full((1, k), np.nan, np.float32)
    return PromptReading(
        logprobs=np.array([np.nan, -1, -2], np.float32),
        top_tokens=np.concatenate([np.zeros((1, k), np.int32), np.arange(4, dtype=np.int32).reshape(2, 2)]),
        top_logprobs=np.concatenate([hole, -rows[1:]]),
        target_logprobs=-rows,
        drawn_tokens=np.arange(length * k, dtype=np.int32).reshape(length, k),
        drawn_logprobs=np.concatenate([hole, -rows[1:]]),
    )


def test_logprobs_have_the_shape_of_the_targets():
    result = forward([0, -1, -2], [0, -3, -4, -5], [0, -6, -7, -8], [0, -9])
    output = deserialize_forward_backward_output(answers.forward_output(result, [0, 2, 0]))
    told = [one["logprobs"].to_numpy() for one in output.loss_fn_outputs]
    assert [values.dtype for values in told] == [np.float32] * 3
    assert told[0].tolist() == [-1, -2]
    assert told[1].tolist() == [[-3, -6], [-4, -7], [-5, -8]]
    assert told[2].tolist() == [-9]


def test_every_metric_says_how_parts_are_joined():
    output = deserialize_forward_backward_output(
        answers.forward_output(forward([0, -1], ratio=1.0, ratio_max=3.0), [0])
    )
    assert output.metrics == {"loss:sum": 1.5, "tokens:sum": 7, "ratio:max": 3.0}
    assert all(name.count(":") == 1 for name in output.metrics)


def test_a_step_tells_its_norm_if_it_has_one():
    assert answers.optim_json(OptimResult(4, 0.5))["metrics"] == {"grad_norm": 0.5, "skipped": 0, "policy_version": 4}
    assert "grad_norm" not in answers.optim_json(OptimResult(4, math.inf, skipped=True))["metrics"]


def test_a_sample_is_tokens_and_their_logprobs():
    drawn = [Completion([5, 6], [-0.5, -1.0], "stop", 0), Completion([7], [-2.0], "length", 0)]
    response = deserialize_sample_response(answers.sample_output(drawn, None, Asked()))
    assert [one.tokens for one in response.sequences] == [[5, 6], [7]]
    assert [one.stop_reason for one in response.sequences] == ["stop", "length"]
    assert response.sequences[0].logprobs == [-0.5, -1.0]
    assert response.prompt_logprobs is None


def test_the_likeliest_tokens_of_a_sample():
    drawn = [Completion([5], [-0.5], "stop", 0, top=[[(5, -0.5), (6, -1.5)]])]
    response = deserialize_sample_response(answers.sample_output(drawn, None, Asked()))
    assert response.sequences[0].topk_logprobs == [[(5, -0.5), (6, -1.5)]]


def test_a_prompt_is_read_from_its_second_token_on():
    asked = Asked(logprobs=True, top=2, draws=2)
    response = deserialize_sample_response(answers.sample_output([], reading(), asked))
    assert response.prompt_logprobs == [None, -1, -2]
    assert response.topk_prompt_logprobs[0] is None
    assert response.topk_prompt_logprobs[1] == [(0, -2.0), (1, -3.0)]
    assert response.prompt_alt_tokens.tokens.tolist() == [[2, 3], [4, 5]]
    assert response.prompt_alt_tokens.logprobs.tolist() == [[-2, -3], [-4, -5]]


def test_only_the_last_tokens_are_told_where_only_they_are_asked():
    asked = Asked(logprobs=True, top=2, last=1)
    response = deserialize_sample_response(answers.sample_output([], reading(), asked))
    assert response.prompt_logprobs == [None, None, -2]
    assert [row is None for row in response.topk_prompt_logprobs] == [True, True, False]


@pytest.mark.parametrize("sparse", [False, True])
def test_targets_come_back_in_the_layout_they_were_asked_in(sparse):
    ids = np.array([[5, -1], [6, 7]])
    asked = ids
    if sparse:
        asked = tensors.Sparse(np.array([5, 6, 7]), np.array([0, 1, 3]), np.array([0, 0, 1]), (2, 2))
    assert answers.wanted_targets(asked, 3).tolist() == [[-1, -1], [5, -1], [6, 7]]
    response = deserialize_sample_response(answers.sample_output([], reading(), Asked(targets=asked)))
    told = response.target_prompt_logprobs
    assert (told.sparse_crow_indices is not None) == sparse
    assert told.to_numpy().tolist() == [[-2, 0], [-4, -5]]
