"""Drawing: exact distributions, nothing impossible, and numbers that belong to one row alone."""

import numpy as np
import pytest
import torch

from fettle.config import SamplingParams
from fettle.engine.local.drawing import Settings, SettingsTable, draw, inverse_cdf, uniforms
from fettle.errors import ModelError

CPU = torch.device("cpu")
LAST = float(np.nextafter(1.0, 0.0))
"""The largest number that a uniform draw can give."""


def settings_of(*params: SamplingParams, vocabulary: int) -> Settings:
    return SettingsTable(params, vocabulary).settings(np.arange(len(params)), CPU)


def drawable(logits: torch.Tensor, params: SamplingParams) -> set[int]:
    """The tokens that a fine comb of uniform numbers draws."""
    comb = torch.linspace(0, LAST, 4001, dtype=torch.float64)
    settings = settings_of(*[params] * len(comb), vocabulary=len(logits))
    return set(draw(logits.expand(len(comb), -1), settings, comb).tokens.tolist())


@pytest.mark.parametrize("vocabulary", [5, 64, 65, 1000, 50257])
@pytest.mark.parametrize("rows", [40, 200])
def test_the_token_is_where_the_running_sum_passes_the_number(vocabulary: int, rows: int) -> None:
    probs = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0)).mul(3).softmax(-1)
    numbers = np.random.default_rng(0).random(rows)
    tokens = inverse_cdf(probs, torch.from_numpy(numbers)).numpy()
    sums = probs.double().cumsum(-1).numpy()
    after = np.take_along_axis(sums, tokens[:, None], 1)[:, 0]
    before = after - np.take_along_axis(probs.double().numpy(), tokens[:, None], 1)[:, 0]
    assert (before - 1e-6 <= numbers * sums[:, -1]).all()
    assert (numbers * sums[:, -1] <= after + 1e-6).all()


@pytest.mark.parametrize("vocabulary", [3, 64, 1000, 151936])
@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2.0**-30, LAST])
def test_a_token_of_probability_zero_is_never_drawn(vocabulary: int, number: float) -> None:
    for possible in (0, vocabulary // 2, vocabulary - 1):
        probs = torch.zeros(1, vocabulary)
        probs[0, possible] = 1.0
        assert inverse_cdf(probs, torch.tensor([number], dtype=torch.float64)).item() == possible


def test_many_unlikely_tokens_of_one_block_can_be_drawn() -> None:
    probs = torch.zeros(1, 128)
    probs[0, :64] = 2.0**-44  # less than a unit each, more than one together
    probs[0, 64] = 1.0
    assert inverse_cdf(probs, torch.zeros(1, dtype=torch.float64)).item() == 0


def test_top_k_leaves_exactly_k_tokens_even_among_equals() -> None:
    logits = torch.tensor([1.0, 2.0, 2.0, 2.0, 0.0])
    assert len(drawable(logits, SamplingParams(top_k=2))) == 2
    assert drawable(logits, SamplingParams(top_k=2)) < {1, 2, 3}
    assert drawable(logits, SamplingParams(top_k=4)) == {0, 1, 2, 3}


def test_top_p_keeps_the_token_with_which_p_is_reached() -> None:
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    assert drawable(logits, SamplingParams(top_p=0.45)) == {1}
    assert drawable(logits, SamplingParams(top_p=0.6)) == {1, 3}
    assert drawable(logits, SamplingParams(top_p=0.8)) == {1, 2, 3}
    assert drawable(logits, SamplingParams(top_p=1.0)) == {0, 1, 2, 3}


def test_top_p_is_taken_of_what_temperature_and_top_k_leave() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert drawable(logits, SamplingParams(top_p=0.65)) == {0, 1}
    assert drawable(logits, SamplingParams(top_p=0.65, top_k=3)) == {0, 1}
    assert drawable(logits, SamplingParams(top_p=0.55, top_k=2)) == {0}  # 4/7 of what is left
    assert drawable(logits, SamplingParams(top_p=0.55, temperature=0.5)) == {0, 1}  # 16/30
    assert drawable(logits, SamplingParams(top_p=0.5, temperature=0.5)) == {0}


def test_rows_of_unlike_settings_are_drawn_as_each_would_be_alone() -> None:
    params = [
        SamplingParams(),
        SamplingParams(temperature=0),
        SamplingParams(temperature=0.5, top_k=3),
        SamplingParams(top_p=0.4),
        SamplingParams(temperature=0, top_k=1, top_p=0.1),
        SamplingParams(temperature=2.0, top_p=0.9, top_k=7),
    ]
    logits = torch.randn(len(params), 40, generator=torch.Generator().manual_seed(1))
    numbers = torch.from_numpy(np.random.default_rng(1).random(len(params)))
    together = draw(logits, settings_of(*params, vocabulary=40), numbers)
    for row, one in enumerate(params):
        alone = draw(logits[row : row + 1], settings_of(one, vocabulary=40), numbers[row : row + 1])
        assert alone.tokens.item() == together.tokens[row].item()
        assert alone.logprobs.item() == pytest.approx(together.logprobs[row].item(), abs=1e-6)


def test_log_probabilities_are_of_the_shaped_distribution_and_untempered_ones_of_the_model() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    params = SamplingParams(temperature=0.5, top_k=2, untempered_logprobs=True)
    drawn = draw(logits, settings_of(params, vocabulary=4), torch.tensor([0.95], dtype=torch.float64))
    assert drawn.tokens.item() == 1
    assert drawn.logprobs.item() == pytest.approx(np.log(np.exp(2) / (np.exp(4) + np.exp(2))), abs=1e-6)
    assert drawn.untempered is not None
    assert drawn.untempered.item() == pytest.approx(logits.log_softmax(-1)[0, 1].item(), abs=1e-6)


def test_the_likeliest_token_comes_with_the_models_own_log_probability() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    drawn = draw(
        logits,
        settings_of(SamplingParams(temperature=0, top_k=1, top_p=0.1), vocabulary=3),
        torch.tensor([0.99]).double(),
    )
    assert drawn.tokens.item() == 1
    assert drawn.logprobs.item() == pytest.approx(logits.log_softmax(-1)[0, 1].item(), abs=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    logits = torch.zeros(2, 5)
    logits[1, 3] = bad
    with pytest.raises(ModelError, match="not finite"):
        draw(logits, settings_of(SamplingParams(), SamplingParams(), vocabulary=5), torch.zeros(2).double())


def test_numbers_depend_on_seed_and_index_and_a_longer_row_begins_like_a_shorter() -> None:
    assert (uniforms(3, 1, 10) == uniforms(3, 1, 50)[:10]).all()
    every = np.concatenate([uniforms(seed, index, 100) for seed in range(5) for index in range(5)])
    assert len(set(every.tolist())) == len(every)
    assert 0 <= every.min() < every.max() < 1
