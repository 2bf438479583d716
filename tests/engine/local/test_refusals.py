"""What the decode loop refuses, in a sentence."""

import pytest

from fettle.errors import ConfigError, ModelError

from .decoding import CONTEXT, PROMPTS, VOCABULARY, complete, decoder, make, requests, tokens_of


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the prompt of request 1 is empty"),
        ([5] * CONTEXT, "the prompt of request 1 has 160 tokens, which leaves no room for more in a context of 160"),
        ([5, VOCABULARY, 2], "the prompt of request 1 holds token id 61, and the model's vocabulary is 0 to 60"),
        ([5, -1], "the prompt of request 1 holds token id -1"),
    ],
    ids=["empty", "long", "high", "low"],
)
def test_a_prompt_that_does_not_fit_the_model_is_refused(prompt: list[int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        complete(decoder(make("qwen3")), requests(1, [PROMPTS[0], prompt], max_tokens=4))


def test_a_row_that_may_outgrow_the_budget_is_refused() -> None:
    message = "request 1 needs room for 29 tokens.*engine.sample_tokens is 28"
    with pytest.raises(ConfigError, match=message):
        complete(decoder(make("qwen3"), budget=28), requests(1, max_tokens=20))


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ConfigError, match="a stop string of request 0 is empty"):
        complete(decoder(make("qwen3")), requests(stop=("a", "")))


def test_diverged_weights_are_refused_and_leave_nothing_behind() -> None:
    model = make("qwen3")
    sampling = decoder(model)
    good = tokens_of(complete(sampling, requests(max_tokens=12)))
    weight = model.model.layers[1].self_attn.v_proj.weight
    saved = weight.detach().clone()
    weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        complete(sampling, requests(8, [PROMPTS[1]], max_tokens=12), version=1)
    weight.data.copy_(saved)
    assert tokens_of(complete(sampling, requests(max_tokens=12), version=2)) == good
