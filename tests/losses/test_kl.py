"""Three estimators of one divergence, in the reward or in the loss: which of them hold a policy."""

import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fettle.config import KL, PPO
from fettle.losses import KL_ESTIMATORS, evaluate, reward_penalty
from fettle.losses.policy_gradient import importance_sampling

POLICY = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
REFERENCE = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)

OF_POLICY_TO_REFERENCE = [0.3207, -0.0825, -0.2382]
OF_REFERENCE_TO_POLICY = [0.3, 0.0, -0.3]
EXPECTED = {
    ("k1", "loss"): [0.0, 0.0, 0.0],
    ("k2", "loss"): OF_POLICY_TO_REFERENCE,
    ("k3", "loss"): OF_REFERENCE_TO_POLICY,
    ("k1", "reward"): OF_POLICY_TO_REFERENCE,
    ("k2", "reward"): [0.063, -0.0882, 0.0252],
    ("k3", "reward"): [0.0207, -0.0825, 0.0618],
}


def expected_gradient(estimator: str, place: str) -> list[float]:
    """Of the penalty, with respect to the logits of a policy of three symbols, over every token it may draw."""
    logits = POLICY.log().requires_grad_()
    logprobs = logits.log_softmax(0)[None]
    drawn, reference = logprobs.detach(), REFERENCE.log()[None]
    if place == "loss":
        values = KL_ESTIMATORS[estimator](logprobs, reference)
    else:
        penalty = reward_penalty(drawn.numpy(), reference.numpy(), estimator=estimator, coefficient=1.0)
        inputs = {"advantages": -torch.from_numpy(penalty), "loss_mask": torch.ones_like(drawn)}
        values, _ = importance_sampling(logprobs, sampling_logprobs=drawn, **inputs)
    return torch.autograd.grad((drawn.exp() * values).sum(), logits)[0].tolist()


def test_the_golden_gradients_are_those_of_the_divergences():
    logits = POLICY.log().requires_grad_()
    logprobs = logits.log_softmax(0)
    reverse = (logprobs.exp() * (logprobs - REFERENCE.log())).sum()
    forward = (REFERENCE * (REFERENCE.log() - logprobs)).sum()
    assert torch.autograd.grad(reverse, logits, retain_graph=True)[0].tolist() == pytest.approx(
        OF_POLICY_TO_REFERENCE, abs=5e-5
    )
    assert torch.autograd.grad(forward, logits)[0].tolist() == pytest.approx(OF_REFERENCE_TO_POLICY)


@pytest.mark.parametrize(("estimator", "place"), EXPECTED)
def test_the_expected_gradient_of_each_estimator_in_each_place(estimator, place):
    assert expected_gradient(estimator, place) == pytest.approx(EXPECTED[estimator, place], abs=5e-5)


def test_the_documented_gradients_are_these():
    text = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(k\d)` \| (loss|reward) \| \(([^)]*)\)", text, flags=re.MULTILINE)
    documented = {(estimator, place): [float(n) for n in numbers.split(",")] for estimator, place, numbers in rows}
    assert documented == EXPECTED


def test_golden_k3():
    def k3(log_ratio: float) -> float:
        return KL_ESTIMATORS["k3"](torch.tensor([[-log_ratio]], dtype=torch.float64), torch.zeros(1, 1)).item()

    assert k3(0.1) == pytest.approx(0.0051709, abs=5e-8)
    assert k3(-0.1) == pytest.approx(0.0048374, abs=5e-8)


def test_k1_and_k3_have_the_divergence_as_their_mean_and_k2_does_not():
    divergence = (POLICY * (POLICY / REFERENCE).log()).sum().item()

    def mean(name: str) -> float:
        return (POLICY * KL_ESTIMATORS[name](POLICY.log(), REFERENCE.log())).sum().item()

    assert mean("k1") == pytest.approx(divergence)
    assert mean("k3") == pytest.approx(divergence)
    assert mean("k2") != pytest.approx(divergence, rel=0.05)


@pytest.mark.parametrize("name", KL_ESTIMATORS)
def test_estimators_equal_their_numpy_oracles(name):
    random = np.random.default_rng(0)
    pi, rho = random.uniform(0.01, 1, (2, 3, 4))
    oracle = {"k1": np.log(pi / rho), "k2": np.log(pi / rho) ** 2 / 2, "k3": rho / pi - 1 - np.log(rho / pi)}
    values = KL_ESTIMATORS[name](torch.tensor(np.log(pi)), torch.tensor(np.log(rho)))
    np.testing.assert_allclose(values.numpy(), oracle[name])


def test_k3_of_a_token_the_policy_all_but_lost_is_finite_and_pushes_nowhere():
    logprobs = torch.tensor([[-200.0]], requires_grad=True)
    value = KL_ESTIMATORS["k3"](logprobs, torch.tensor([[-0.5]]))
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), logprobs)[0].item() == 0.0


def test_the_penalty_in_the_loss_is_coefficient_times_estimate_and_reported_without_it():
    def at(value: float) -> Tensor:
        return torch.tensor([[value, 0.0]], dtype=torch.float64)

    inputs = {"sampling_logprobs": at(-1.0), "advantages": at(0.0), "reference_logprobs": at(-0.9)}
    inputs["loss_mask"] = at(1.0)
    values, metrics = evaluate(PPO(kl=KL(coefficient=0.04)), {"logprobs": at(-1.0)}, inputs)
    assert values[0].tolist() == pytest.approx([0.04 * 0.0051709, 0.0], abs=1e-8)
    assert metrics["kl_k3"][0].tolist() == pytest.approx([0.0051709, 0.0], abs=5e-8)


def test_the_proximal_term_is_the_divergence_from_the_sampler_with_its_gradient():
    """At tokens drawn from μ, ``π/μ - 1 - log π/μ`` has KL(μ‖π) as its mean; its derivative by log π is ``π/μ - 1``."""
    sampled = torch.log(torch.tensor([[0.5, 0.25]], dtype=torch.float64))
    logprobs = torch.log(torch.tensor([[0.75, 0.125]], dtype=torch.float64)).requires_grad_()
    ones, zeros = torch.ones_like(sampled), torch.zeros_like(sampled)
    inputs = {"sampling_logprobs": sampled, "advantages": zeros, "loss_mask": ones}
    values, metrics = evaluate(PPO(proximal_coefficient=3.0), {"logprobs": logprobs}, inputs)
    expected = [0.5 - math.log(1.5), -0.5 + math.log(2)]
    assert metrics["kl_sampler"][0].tolist() == pytest.approx(expected)
    assert values[0].tolist() == pytest.approx([3 * each for each in expected])
    assert torch.autograd.grad(values.sum(), logprobs)[0][0].tolist() == pytest.approx([1.5, -1.5])


def test_the_penalty_in_the_reward_is_no_part_of_the_loss():
    zero = torch.zeros(1, 2)
    inputs = {"sampling_logprobs": zero, "advantages": zero, "loss_mask": zero}
    _, metrics = evaluate(PPO(kl=KL(estimator="k1", place="reward")), {"logprobs": zero}, inputs)
    assert not any(name.startswith("kl_k") for name in metrics)


def test_the_penalty_in_the_reward_is_one_cost_a_token():
    sampling, reference = np.log(np.float32([0.4, 0.5])), np.log(np.float32([0.3, 0.5]))
    penalty = reward_penalty(sampling, reference, estimator="k1", coefficient=0.03)
    np.testing.assert_allclose(penalty, [0.03 * np.log(4 / 3), 0], rtol=1e-6)
    assert penalty.dtype == np.float32


@pytest.mark.parametrize(("estimator", "place"), EXPECTED)
def test_a_warning_says_so_where_an_estimator_does_not_hold_the_policy(estimator, place):
    sound = EXPECTED[estimator, place] in (OF_POLICY_TO_REFERENCE, OF_REFERENCE_TO_POLICY)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        PPO.model_validate({"kl": {"estimator": estimator, "place": place}})
    assert len(caught) == (0 if sound else 1)
    assert all(f"the KL estimator {estimator} in the {place}" in str(warning.message) for warning in caught)
