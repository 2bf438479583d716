"""Preference losses against their papers' numbers, and what each is for."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fettle.losses.preference import VARIANTS, dpo, kto, orpo, simpo

N = 6


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pairs(seed: int = 0) -> dict[str, Tensor]:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 9, (2, N)).astype(float)
    logprobs = -lengths * random.uniform(0.1, 2.0, (2, N))
    reference = logprobs + random.normal(size=(2, N))
    names = ("chosen_{}", "rejected_{}")
    arrays = {"logprobs": logprobs, "reference_logprobs": reference, "lengths": lengths}
    return {name.format(of): torch.tensor(x[i]) for of, x in arrays.items() for i, name in enumerate(names)}


PAIR = ("chosen_logprobs", "rejected_logprobs")
WITHOUT_REFERENCE = (*PAIR, "chosen_lengths", "rejected_lengths")
LOSSES = {
    **{
        f"dpo {variant}": lambda given, v=variant: dpo(**given, pair_margin=torch.zeros(N), variant=v)
        for variant in VARIANTS
    },
    "dpo conservative": lambda given: dpo(**given, pair_margin=torch.zeros(N), label_smoothing=0.1),
    "dpo robust with noise": lambda given: dpo(
        **given, pair_margin=torch.zeros(N), label_smoothing=0.1, variant="robust"
    ),
    "dpo with margins per token": lambda given: dpo(
        **given, pair_margin=torch.full((N,), 0.2), margin=0.3, length_normalized=True
    ),
    "dpo without reference": lambda given: dpo(**given, pair_margin=torch.zeros(N), reference_free=True),
    "simpo": lambda given: simpo(**{name: given[name] for name in WITHOUT_REFERENCE}),
    "orpo": lambda given: orpo(**{name: given[name] for name in WITHOUT_REFERENCE}),
}


def every_loss():
    return pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def golden(**settings: float | str | bool) -> Tensor:
    """Of log-probabilities -10 and -12, the reference's -11 and -11.5, β 0.1: h = 0.15."""
    reference = {"chosen_reference_logprobs": row(-11), "rejected_reference_logprobs": row(-11.5)}
    lengths = {"chosen_lengths": row(4), "rejected_lengths": row(5)}
    given = {"chosen_logprobs": row(-10), "rejected_logprobs": row(-12), "pair_margin": row(0)}
    return dpo(**{**given, **reference, **lengths, **settings})[0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 0.6209570),
        ({"label_smoothing": 0.1}, 0.6359570),
        ({"label_smoothing": 0.1, "variant": "robust"}, 0.6022070),
        ({"variant": "ipo"}, 12.25),
        ({"variant": "hinge"}, 0.85),
    ],
)
def test_golden_numbers(settings, expected):
    assert golden(**settings).item() == pytest.approx(expected, abs=5e-8)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("settings", "h"),
    [
        ({"reference_free": True}, 0.1 * (-10 + 12)),
        ({"length_normalized": True}, 0.1 * (1 / 4 + 0.5 / 5)),
        ({"reference_free": True, "length_normalized": True}, 0.1 * (-10 / 4 + 12 / 5)),
        ({"margin": 0.4}, 0.15 - 0.4),
        ({"margin": 0.4, "pair_margin": row(0.25)}, 0.15 - 0.4 - 0.25),
        ({"beta": 0.5}, 0.75),
    ],
)
def test_what_each_setting_does_to_the_difference(settings, h):
    assert golden(**settings).item() == pytest.approx(softplus(-h))


def test_a_policy_that_is_the_reference_costs_ln_2():
    given = pairs()
    given |= {f"{which}_reference_logprobs": given[f"{which}_logprobs"] for which in ("chosen", "rejected")}
    loss, metrics = dpo(**given, pair_margin=torch.zeros(N))
    assert loss.tolist() == pytest.approx([math.log(2)] * N)
    assert not metrics["preference_accuracy"].any()  # a tie is wrong


def test_the_expected_robust_loss_under_noisy_labels_is_the_loss_under_clean_ones():
    """Chowdhury et al., 2024: with labels flipped at the rate ε, robust DPO is unbiased and plain DPO is not."""
    given = pairs()
    flipped = {name: given[other] for name, other in zip(given, swapped_names(given), strict=True)}
    none = torch.zeros(N)

    def noisy(**settings: float | str) -> Tensor:
        return (
            0.8 * dpo(**given, pair_margin=none, **settings)[0] + 0.2 * dpo(**flipped, pair_margin=none, **settings)[0]
        )

    clean = dpo(**given, pair_margin=none)[0]
    torch.testing.assert_close(noisy(variant="robust", label_smoothing=0.2), clean)
    assert not torch.allclose(noisy(), clean, rtol=1e-3)


def swapped_names(given: dict[str, Tensor]) -> list[str]:
    return [
        name.replace("chosen", "rejected") if name.startswith("chosen") else name.replace("rejected", "chosen")
        for name in given
    ]


@every_loss()
def test_the_gradient_is_that_of_finite_differences(loss):
    given = pairs(1)
    leaves = tuple(given[name].requires_grad_() for name in PAIR)
    assert torch.autograd.gradcheck(lambda *of: loss({**given, **dict(zip(PAIR, of, strict=True))})[0], leaves)


@every_loss()
def test_swapping_the_pair_flips_the_sign_of_the_gradient(loss):
    given = pairs()
    flipped = {name: given[other] for name, other in zip(given, swapped_names(given), strict=True)}
    replies = [given[name].requires_grad_() for name in PAIR]
    first, second = (torch.autograd.grad(loss(of)[0].sum(), replies) for of in (given, flipped))
    of_the_reply = (first[0], second[0])  # as chosen, as rejected
    assert (of_the_reply[0] < 0).all()
    assert (of_the_reply[1] > 0).all()


def test_swapping_an_equal_pair_flips_the_gradient_exactly():
    given = {name: torch.full((1,), -3.0) for name in PAIR}
    given |= {"chosen_reference_logprobs": row(-3), "rejected_reference_logprobs": row(-3)}
    given |= {"chosen_lengths": row(2), "rejected_lengths": row(2), "pair_margin": row(0)}
    replies = [given[name].requires_grad_() for name in PAIR]
    chosen, rejected = torch.autograd.grad(dpo(**given)[0].sum(), replies)
    assert chosen.item() == pytest.approx(-0.05)
    assert rejected.item() == pytest.approx(0.05)


def oracle_rewards(chosen: np.ndarray, rejected: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "chosen_reward": chosen,
        "rejected_reward": rejected,
        "reward_margin": chosen - rejected,
        "preference_accuracy": chosen > rejected,
    }


def test_every_metric_of_a_pair_equals_its_numpy_oracle():
    given = pairs()
    w, l_, ref_w, ref_l, len_w, len_l = (given[name].numpy() for name in given)
    of_dpo = oracle_rewards(0.1 * (w - ref_w), 0.1 * (l_ - ref_l))
    of_dpo["implicit_reward"] = of_dpo["reward_margin"]
    mean_w, mean_l = w / len_w, l_ / len_l
    cases = [
        (LOSSES["dpo sigmoid"](given), of_dpo),
        (LOSSES["dpo hinge"](given), of_dpo),
        (LOSSES["simpo"](given), oracle_rewards(2 * mean_w, 2 * mean_l)),
        (LOSSES["orpo"](given), oracle_rewards(0.1 * mean_w, 0.1 * mean_l) | {"nll": -mean_w}),
    ]
    for (_, metrics), oracle in cases:
        assert set(metrics) == set(oracle)
        for name, expected in oracle.items():
            np.testing.assert_allclose(metrics[name].numpy(), expected, err_msg=name)
        assert 0 < metrics["preference_accuracy"].mean() < 1


def test_accuracy_is_of_implicit_rewards_and_not_of_raw_log_probabilities():
    """The chosen is the likelier reply, and yet less likely than under the reference."""
    given = {"chosen_logprobs": row(-5), "rejected_logprobs": row(-9)}
    given |= {"chosen_reference_logprobs": row(-4), "rejected_reference_logprobs": row(-10)}
    given |= {"chosen_lengths": row(1), "rejected_lengths": row(1), "pair_margin": row(0)}
    assert dpo(**given)[1]["preference_accuracy"].item() == 0
    assert dpo(**given, reference_free=True)[1]["preference_accuracy"].item() == 1


def test_simpo_by_hand():
    given = {"chosen_logprobs": row(-4), "rejected_logprobs": row(-9)}
    given |= {"chosen_lengths": row(4), "rejected_lengths": row(6)}
    loss, _ = simpo(**given, beta=2.0, target_margin=0.5)
    assert loss.item() == pytest.approx(softplus(-(2 * (-1 + 1.5) - 0.5)))


def test_orpo_by_hand():
    """Mean probabilities 1/2 and 1/4: odds 1 and 1/3, an odds ratio of 3."""
    given = {"chosen_logprobs": row(2 * math.log(0.5)), "rejected_logprobs": row(3 * math.log(0.25))}
    given |= {"chosen_lengths": row(2), "rejected_lengths": row(3)}
    loss, _ = orpo(**given, beta=0.2)
    assert loss.item() == pytest.approx(math.log(2) + 0.2 * math.log(4 / 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_odds_of_the_certain_and_of_the_impossible_are_finite(dtype):
    """Rounding may put a certain reply's log-probability at 0, or a little above."""
    edges = torch.tensor([1e-7, 0.0, -1e-9, -1e-3, -50.0, -1e4], dtype=dtype)
    chosen, rejected = torch.cartesian_prod(edges, edges).T
    ones = torch.ones_like(chosen)
    leaves = [x.clone().requires_grad_() for x in (chosen, rejected)]
    loss, _ = orpo(chosen_logprobs=leaves[0], rejected_logprobs=leaves[1], chosen_lengths=ones, rejected_lengths=ones)
    assert loss.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss.sum(), leaves))


def ratings() -> dict[str, Tensor]:
    return {
        "logprobs": row(-10, -12, -8, -9),
        "reference_logprobs": row(-11, -11.5, -6, -9),
        "preferred": row(1, 1, 0, 0),
        "kl_baseline": row(0.3, 0.3, 0.3, 0.3),
    }


def test_kto_is_the_distance_from_the_baseline_on_the_right_side():
    """Log-ratios 1, -0.5, -2 and 0 about a baseline of 0.3."""
    loss, metrics = kto(**ratings(), beta=0.5, desirable_weight=2.0, undesirable_weight=3.0)
    margins = [0.5 * 0.7, 0.5 * -0.8, 0.5 * 2.3, 0.5 * 0.3]
    expected = [w * (1 - 1 / (1 + math.exp(-m))) for w, m in zip([2, 2, 3, 3], margins, strict=True)]
    assert loss.tolist() == pytest.approx(expected)
    assert metrics["reward"].tolist() == pytest.approx([0.5, -0.25, -1.0, 0.0])
    assert metrics["reward_margin"].tolist() == pytest.approx(margins)
    assert metrics["preference_accuracy"].tolist() == [1, 0, 1, 1]
    assert set(metrics) == {"reward", "reward_margin", "preference_accuracy"}


def test_kto_raises_the_good_lowers_the_bad_and_flips_with_the_label():
    given = ratings()
    given["logprobs"].requires_grad_()
    (gradient,) = torch.autograd.grad(kto(**given)[0].sum(), given["logprobs"])
    assert gradient.sign().tolist() == [-1, -1, 1, 1]
    flipped = {**given, "preferred": 1 - given["preferred"]}
    (other,) = torch.autograd.grad(kto(**flipped)[0].sum(), given["logprobs"])
    torch.testing.assert_close(other, -gradient)
    assert torch.autograd.gradcheck(lambda x: kto(**{**given, "logprobs": x})[0], (given["logprobs"],))


def test_kto_at_the_baseline_costs_half_its_weight():
    given = {**ratings(), "reference_logprobs": ratings()["logprobs"] - 0.3}
    assert kto(**given, desirable_weight=2.0)[0].tolist() == pytest.approx([1, 1, 0.5, 0.5])
