"""What a request may ask of its drawing: to be told of each token and to end it, the likeliest tokens, no end token."""

from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from fettle.config import SamplingParams
from fettle.engine.base import SampleRequest
from fettle.engine.local.decode import Decoder
from fettle.types import Completion

from .decoding import PROMPTS, complete, decoder, make, requests, tokens_of, watched

PATHS = {"lean": ("qwen3", True), "driven": ("qwen3", False), "generic": ("mamba", False)}

Told = list[tuple[int, int, float]]


def path(name: str, **settings: object) -> tuple[PreTrainedModel, Decoder]:
    model, lean = PATHS[name]
    made = make(model)
    found = decoder(made, lean=lean, **settings)
    assert found.path == name
    return made, found


def listening(told: Told, *, until: int | None = None) -> object:
    """A watch that has had enough after ``until`` tokens."""

    def watch(index: int, token: int, logprob: float) -> bool:
        told.append((index, token, logprob))
        return until is None or len(told) < until

    return watch


def same(one: list[Completion], other: list[Completion]) -> bool:
    return [(c.tokens, c.logprobs, c.stop_reason) for c in one] == [
        (c.tokens, c.logprobs, c.stop_reason) for c in other
    ]


@pytest.mark.parametrize("name", PATHS)
def test_every_token_is_told_as_it_is_drawn_and_no_bit_changes(name: str) -> None:
    _, draws = path(name)
    asked = requests(3, max_tokens=6)
    plain = complete(draws, asked)
    told: list[Told] = [[] for _ in asked]
    found = complete(draws, [replace(r, watch=listening(t)) for r, t in zip(asked, told, strict=True)])
    for completions, before, heard in zip(found, plain, told, strict=True):
        assert same(completions, before)
        for index, completion in enumerate(completions):
            own = [(token, logprob) for i, token, logprob in heard if i == index]
            assert own == list(zip(completion.tokens, completion.logprobs, strict=True))


@pytest.mark.parametrize("name", PATHS)
def test_a_request_ends_when_its_watch_has_had_enough_and_others_go_on(name: str) -> None:
    _, draws = path(name)
    asked = requests(3, max_tokens=6)
    plain = complete(draws, asked)
    told: Told = []
    found = complete(draws, [replace(asked[0], watch=listening(told, until=7)), *asked[1:]])
    assert tokens_of(found)[1:] == tokens_of(plain)[1:]
    assert [len(completion.tokens) for completion in found[0]] == [3, 3, 3]  # the third step's tokens were drawn
    assert len(told) == 7
    for cut, whole in zip(found[0], plain[0], strict=True):
        assert cut.tokens == whole.tokens[:3]
        assert cut.stop_reason == "length"


@pytest.mark.parametrize("name", PATHS)
def test_rows_that_wait_for_room_draw_nothing_once_it_is_enough(name: str) -> None:
    """Two rows fit at a time, and the watch ends with the first token."""
    model, draws = path(name, budget=20 if name == "generic" else 16)
    with watched(model) as seen:
        (found,) = complete(draws, [SampleRequest(PROMPTS[0], 5, SamplingParams(max_tokens=6), listening([], until=1))])
    drawn = [len(completion.tokens) for completion in found]
    assert sorted(drawn) == [0, 0, 0, 1, 1]
    assert {completion.stop_reason for completion in found} == {"length"}
    assert not seen.steps


def test_a_row_that_ended_by_itself_says_so() -> None:
    _, draws = path("lean")
    (plain,) = complete(draws, [SampleRequest(PROMPTS[0], 1, SamplingParams(max_tokens=6))])
    stop = plain[0].tokens[2]
    params = SamplingParams(max_tokens=6, stop_token_ids=(stop,))
    (found,) = complete(draws, [SampleRequest(PROMPTS[0], 1, params, listening([], until=3))])
    assert (found[0].tokens, found[0].stop_reason) == (plain[0].tokens[:3], "stop")


@pytest.mark.parametrize("name", PATHS)
def test_without_end_tokens_only_what_is_named_stops_it(name: str) -> None:
    _, draws = path(name)
    asked = requests(2, max_tokens=8)
    plain = complete(draws, asked)
    end = plain[0][0].tokens[3]
    ending = decoder(make(PATHS[name][0]), lean=PATHS[name][1], ends=frozenset({end}))
    assert complete(ending, asked)[0][0].tokens == plain[0][0].tokens[: plain[0][0].tokens.index(end) + 1]
    endless = [replace(r, params=r.params.model_copy(update={"end_tokens": False})) for r in asked]
    assert tokens_of(complete(ending, endless)) == tokens_of(plain)
    stop = plain[0][0].tokens[1]
    named = [replace(r, params=r.params.model_copy(update={"stop_token_ids": (stop,)})) for r in endless]
    found = complete(ending, named)[0][0]
    assert (found.tokens, found.stop_reason) == (plain[0][0].tokens[: plain[0][0].tokens.index(stop) + 1], "stop")


@pytest.mark.parametrize("name", PATHS)
def test_the_likeliest_tokens_are_those_of_the_models_own_distribution(name: str) -> None:
    """Whatever the draw is shaped by, and each request as many as it asks for."""
    model, draws = path(name)
    shapes = [{"top_logprobs": 3}, {"top_logprobs": 5, "temperature": 0.3, "top_k": 2}, {}, {"top_logprobs": 200}]
    shapes[3] = {"top_logprobs": 128, "temperature": 0.0}
    asked = [
        SampleRequest(prompt, 2, SamplingParams(max_tokens=5, **shape))
        for prompt, shape in zip(PROMPTS, shapes, strict=True)
    ]
    without = [replace(r, params=r.params.model_copy(update={"top_logprobs": 0})) for r in asked]
    found = complete(draws, asked)
    for request, completions, plain in zip(asked, found, complete(draws, without), strict=True):
        assert same(completions, plain)
        for completion in completions:
            if not request.params.top_logprobs:
                assert completion.top is None
                continue
            sequence = torch.tensor([[*request.prompt, *completion.tokens]])
            with torch.no_grad():
                logits = model(input_ids=sequence, use_cache=False).logits[0, len(request.prompt) - 1 : -1].float()
            values, ids = logits.log_softmax(-1).topk(min(request.params.top_logprobs, logits.shape[1]))
            assert completion.top is not None
            assert [[token for token, _ in place] for place in completion.top] == ids.tolist()
            assert [[x for _, x in place] for place in completion.top] == [
                pytest.approx(row, abs=1e-4) for row in values.tolist()
            ]
