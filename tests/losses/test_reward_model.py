"""Scores that explain choices: where the margin stands, what centres, and whether probabilities mean what they say."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fettle.losses import finished
from fettle.losses.reward_model import calibration_error, reward_modeling


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def scored(chosen: Tensor, rejected: Tensor, **settings: float | str) -> tuple[Tensor, dict[str, Tensor]]:
    given = {"pair_margin": torch.zeros_like(chosen)} | settings
    return reward_modeling(chosen_scores=chosen, rejected_scores=rejected, **given)


@pytest.mark.parametrize(
    ("settings", "golden"),
    [
        ({}, 0.4741),
        ({"temperature": 0.1, "margin": 1.0, "margin_place": "logit"}, 0.01815),
        ({"temperature": 0.1, "margin": 1.0, "margin_place": "reward"}, 5.0067),
    ],
)
def test_golden_numbers_of_a_difference_of_one_half(settings, golden):
    loss, _ = scored(row(1.5), row(1.0), **settings)
    assert loss.item() == pytest.approx(golden, rel=2e-4)


def test_equal_scores_cost_ln_2():
    assert scored(row(0.7), row(0.7))[0].item() == pytest.approx(math.log(2))


def test_a_margin_of_the_pair_is_added_to_the_settings():
    asked = scored(row(1.0, 1.0), row(0.0, 0.0), pair_margin=row(0.0, 0.5), margin=0.25)[0].tolist()
    assert asked == pytest.approx([math.log1p(math.exp(-0.75)), math.log1p(math.exp(-0.25))])


def test_centering_is_the_squared_sum_of_a_pairs_scores_and_holds_what_choices_leave_open():
    chosen, rejected = row(3.0).requires_grad_(), row(1.0).requires_grad_()
    free, held = scored(chosen, rejected)[0], scored(chosen, rejected, centering=0.01)[0]
    assert (held - free).item() == pytest.approx(0.16)
    moved = [torch.autograd.grad(loss, [chosen, rejected], retain_graph=True) for loss in (free, held)]
    both = [(a + b).item() for a, b in moved]  # along a constant added to every score
    assert both == pytest.approx([0.0, 2 * 2 * 0.01 * 4])


def test_swapping_the_pair_flips_the_gradient_where_scores_are_equal():
    a, b = row(0.3).requires_grad_(), row(0.3).requires_grad_()
    as_given = torch.autograd.grad(scored(a, b)[0], [a, b])
    swapped = torch.autograd.grad(scored(b, a)[0], [a, b])
    assert [x.item() for x in as_given] == pytest.approx([-0.5, 0.5])
    assert [x.item() for x in swapped] == pytest.approx([0.5, -0.5])


@pytest.mark.parametrize("place", ["reward", "logit"])
def test_the_gradient_is_that_of_finite_differences(place):
    random = torch.Generator().manual_seed(0)
    chosen, rejected, asked = (torch.randn(5, generator=random, dtype=torch.float64) for _ in range(3))
    settings = {"temperature": 0.7, "margin": 0.3, "margin_place": place, "centering": 0.01, "pair_margin": asked}
    leaves = (chosen.requires_grad_(), rejected.requires_grad_())
    assert torch.autograd.gradcheck(lambda *of: scored(*of, **settings)[0], leaves)


def test_every_metric_as_it_is_reported_equals_its_numpy_oracle():
    random = np.random.default_rng(0)
    chosen, rejected = random.normal(0.5, 1, 40), random.normal(0, 2, 40)
    chosen[0] = rejected[0]  # a tie is wrong
    _, metrics = scored(torch.tensor(chosen), torch.tensor(rejected), margin=0.2, temperature=0.5)
    reported = finished({name: values.mean().item() for name, values in metrics.items()})
    assert reported == pytest.approx(
        {
            "preference_accuracy": np.mean(chosen > rejected),
            "reward_margin": np.mean(chosen - rejected),
            "chosen_reward_mean": chosen.mean(),
            "rejected_reward_mean": rejected.mean(),
            "chosen_reward_std": chosen.std(),
            "rejected_reward_std": rejected.std(),
        }
    )


def test_the_calibration_error_by_hand():
    """Two bins: two said at 0.2 of which one came true, two at 0.9 and 0.7 that both did."""
    said, true = np.float32([0.2, 0.2, 0.9, 0.7]), np.float32([1, 0, 1, 1])
    assert calibration_error(said, true, bins=2) == pytest.approx(0.5 * 0.3 + 0.5 * 0.2)
    assert calibration_error(said, true, bins=10) == pytest.approx(0.5 * 0.3 + 0.25 * 0.1 + 0.25 * 0.3)


def test_what_comes_true_as_often_as_it_says_is_calibrated_and_what_boasts_is_not():
    random = np.random.default_rng(0)
    said = random.uniform(0.5, 1, 50_000).astype(np.float32)
    true = (random.uniform(size=50_000) < said).astype(np.float32)
    assert calibration_error(said, true) < 0.01
    boast = np.minimum(said + 0.2, 1).astype(np.float32)
    assert calibration_error(boast, true) == pytest.approx(np.mean(boast - said), abs=0.01)


def test_certainty_falls_into_the_last_bin():
    assert calibration_error(np.float32([1.0, 0.95]), np.float32([0.0, 1.0]), bins=10) == pytest.approx(0.475)
