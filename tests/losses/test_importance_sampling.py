"""Corrected for who drew the tokens: unbiased without a cap, bounded with one, by token or by sequence."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fettle.losses import REDUCTIONS, finished
from fettle.losses.policy_gradient import importance_sampling


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def drawn(ratios: list[float], advantages: list[float], sampled: float = 0.2) -> tuple[Tensor, dict[str, Tensor]]:
    """One sequence whose tokens were drawn with probability ``sampled`` and now have these ratios to it."""
    sampling = row(*[math.log(sampled)] * len(ratios))
    logprobs = (sampling + torch.log(row(*ratios))).requires_grad_()
    inputs = {"sampling_logprobs": sampling, "advantages": row(*advantages), "loss_mask": torch.ones_like(sampling)}
    return logprobs, inputs


def several(seed: int = 0) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Probabilities under the policy and the sampler, and inputs, of five sequences of one to four trained tokens."""
    random = np.random.default_rng(seed)
    pi = random.uniform(0.05, 0.95, (5, 5))
    mu = np.clip(pi * random.uniform(0.4, 1.8, (5, 5)), 0.01, 0.99)
    mask = np.array([[0, 1, 1, 1, 1], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1], [0, 1, 1, 1, 0], [0, 1, 1, 0, 0]], dtype=float)
    return pi, mu, {"advantages": random.normal(size=(5, 5)), "loss_mask": mask}


def tensors(mu: np.ndarray, inputs: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {"sampling_logprobs": torch.tensor(np.log(mu))} | {name: torch.tensor(x) for name, x in inputs.items()}


def slope(values: Tensor, logprobs: Tensor) -> list[float]:
    return torch.autograd.grad(values.sum(), logprobs)[0][0].tolist()


def test_without_a_cap_it_is_minus_ratio_times_advantage():
    logprobs, inputs = drawn([1.5, 0.5, 30], [1, -2, 1], sampled=0.02)
    loss, metrics = importance_sampling(logprobs, **inputs)
    assert loss[0].tolist() == pytest.approx([-1.5, 1.0, -30])
    assert slope(loss, logprobs) == pytest.approx([-1.5, 1.0, -30])
    assert not metrics["clip_fraction"].any()


def test_the_defaults_are_the_formula_to_the_last_bit():
    pi, mu, inputs = several()
    given = tensors(mu, inputs)
    logprobs = torch.tensor(np.log(pi))
    loss, _ = importance_sampling(logprobs, **given)
    assert torch.equal(loss, -(logprobs - given["sampling_logprobs"]).exp() * given["advantages"])


def test_above_the_cap_the_truncated_form_is_constant_and_the_other_still_teaches():
    logprobs, inputs = drawn([8, 2, 0.1], [1, 1, -1], sampled=0.1)
    truncated, metrics = importance_sampling(logprobs, **inputs, clip_ratio=4.0)
    assert truncated[0].tolist() == pytest.approx([-4, -2, 0.1])
    assert slope(truncated, logprobs) == pytest.approx([0, -2, 0.1])
    cispo, same = importance_sampling(logprobs, **inputs, form="cispo", clip_ratio=4.0)
    assert cispo[0].tolist() == pytest.approx([-4 * math.log(0.8), -2 * math.log(0.2), 0.1 * math.log(0.01)])
    assert slope(cispo, logprobs) == pytest.approx([-4, -2, 0.1])
    for told in (metrics, same):
        assert told["clip_fraction"][0].tolist() == [1, 0, 0]
        assert told["ratio"][0].tolist() == pytest.approx([8, 2, 0.1])


def test_a_sequences_ratio_is_the_product_over_its_trained_tokens_and_all_of_them_hold_it():
    logprobs, inputs = drawn([4.0, 1.5, 100.0], [1, 1, 1], sampled=0.005)
    inputs["loss_mask"] = row(1, 1, 0)
    loss, metrics = importance_sampling(logprobs, **inputs, level="sequence")
    assert loss[0, :2].tolist() == pytest.approx([-6, -6])
    assert metrics["ratio"][0].tolist() == pytest.approx([6, 6, 6])
    (gradient,) = torch.autograd.grad(loss[0, 0], logprobs)
    assert gradient[0].tolist() == pytest.approx([-6, -6, 0])  # of one token's value, at every trained token
    capped, metrics = importance_sampling(logprobs, **inputs, level="sequence", clip_ratio=5.0)
    assert capped[0, :2].tolist() == pytest.approx([-5, -5])
    assert metrics["clip_fraction"][0].tolist() == [1, 1, 1]
    assert slope(capped, logprobs) == [0, 0, 0]


@pytest.mark.parametrize(("form", "reduction"), [("truncated", "sequence_mean"), ("cispo", "sequence_sum")])
def test_the_weights_that_make_the_objective_of_whole_sequences(form, reduction):
    """``∇ E[w A] = (1/N) Σ_i w_i A_i Σ_t ∇ log π_t``."""
    pi, mu, inputs = several()
    advantage = np.array([0.7, -0.4, 1.1, -0.9, 0.3])
    inputs["advantages"] = np.broadcast_to(advantage[:, None], pi.shape).copy()
    mask = inputs["loss_mask"]
    weights = np.array(REDUCTIONS[reduction](list(mask)), dtype=np.float64)
    logprobs = torch.tensor(np.log(pi), requires_grad=True)
    loss, _ = importance_sampling(logprobs, **tensors(mu, inputs), level="sequence", form=form)
    (gradient,) = torch.autograd.grad((loss * torch.tensor(weights)).sum(), logprobs)
    ratio = np.prod(np.where(mask > 0, pi / mu, 1), axis=1)
    np.testing.assert_allclose(gradient.numpy(), -(ratio * advantage / 5)[:, None] * mask, rtol=1e-6)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("form", ["truncated", "cispo"])
def test_every_metric_equals_its_numpy_oracle(level, form):
    pi, mu, inputs = several()
    cap = 1.1
    _, metrics = importance_sampling(
        torch.tensor(np.log(pi)), **tensors(mu, inputs), level=level, form=form, clip_ratio=cap
    )
    of_token = pi / mu
    ratio = of_token
    if level == "sequence":
        products = [np.prod(r[m == 1]) for r, m in zip(of_token, inputs["loss_mask"], strict=True)]
        ratio = np.broadcast_to(np.array(products)[:, None], of_token.shape)
    oracle = {
        "ratio": ratio,
        "ratio_max": ratio,
        "ratio_min": ratio,
        "ratio_squared": ratio**2,
        "clip_fraction": ratio > cap,
        "kl_sampler": of_token - 1 - np.log(of_token),
    }
    assert set(metrics) == set(oracle)
    for name, expected in oracle.items():
        np.testing.assert_allclose(metrics[name].numpy(), expected, err_msg=name)
        assert np.any(expected), f"{name} is 0 everywhere, and proves nothing"


def test_the_effective_sample_size_is_that_of_the_weights():
    pi, mu, inputs = several()
    _, metrics = importance_sampling(torch.tensor(np.log(pi)), **tensors(mu, inputs))
    w = (pi / mu)[inputs["loss_mask"] > 0]
    trained = torch.tensor(inputs["loss_mask"]) > 0
    share = finished({name: values[trained].mean().item() for name, values in metrics.items()})["effective_sample_size"]
    assert share * len(w) == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert 0 < share < 1


def test_every_sample_counts_on_policy():
    _, mu, inputs = several()
    _, metrics = importance_sampling(torch.tensor(np.log(mu)), **tensors(mu, inputs))
    assert finished({name: values.mean().item() for name, values in metrics.items()})["effective_sample_size"] == 1


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_gradient_is_that_of_finite_differences(level):
    pi, mu, inputs = several()
    given = tensors(mu, inputs)

    def total(logprobs: Tensor, **settings: float | str) -> Tensor:
        return (importance_sampling(logprobs, **given, level=level, **settings)[0] * given["loss_mask"]).sum()

    logprobs = torch.tensor(np.log(pi), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: total(x, clip_ratio=1.1), (logprobs,))
    # Its weight takes no gradient: where it is a constant, none is missing.
    assert torch.autograd.gradcheck(lambda x: total(x, form="cispo", clip_ratio=1e-3), (logprobs,))


def test_a_ratio_past_what_a_float_holds_is_finite():
    logprobs = torch.tensor([[-1e-3, -1e-3]], requires_grad=True)
    inputs = {"sampling_logprobs": torch.full((1, 2), -80.0), "advantages": torch.ones(1, 2)}
    loss, metrics = importance_sampling(logprobs, **inputs, loss_mask=torch.ones(1, 2), level="sequence")
    assert loss.isfinite().all()
    assert all(values.isfinite().all() for values in metrics.values())
    assert torch.autograd.grad(loss.sum(), logprobs)[0].isfinite().all()


MU, REWARDS = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.3, 0.6, 1.0])
LOGITS = torch.tensor([0.0, 0.2, 0.4, 0.9], dtype=torch.float64)


@pytest.mark.parametrize("form", ["truncated", "cispo"])
def test_it_is_unbiased_on_a_bandit(form):
    """Four arms, drawn by a sampler that favours the wrong ones: corrected, value and gradient are the policy's own."""
    arms = np.random.default_rng(2).choice(4, size=(1, 400_000), p=MU)
    logits = LOGITS.clone().requires_grad_()
    policy = logits.log_softmax(0)
    value = (policy.exp() * torch.tensor(REWARDS)).sum()
    (true_gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
    inputs = {"sampling_logprobs": torch.tensor(np.log(MU)[arms]), "advantages": torch.tensor(REWARDS[arms])}
    inputs["loss_mask"] = torch.ones_like(inputs["advantages"])
    loss, metrics = importance_sampling(policy[torch.tensor(arms)], **inputs, form=form)
    (gradient,) = torch.autograd.grad(-loss.mean(), logits)

    estimate = (metrics["ratio"] * inputs["advantages"]).mean().item()
    assert estimate == pytest.approx(value.item(), rel=0.02)
    assert torch.linalg.vector_norm(gradient - true_gradient) < 0.02 * torch.linalg.vector_norm(true_gradient)
    uncorrected = inputs["advantages"].mean().item()
    assert abs(uncorrected - value.item()) > 0.1 * value.item()


def test_the_sequence_level_is_unbiased_where_two_draws_are_rewarded_together():
    """The reward is that of the pair of arms: each token's own ratio does not correct for the other draw."""
    random = np.random.default_rng(3)
    arms = random.choice(4, size=(400_000, 2), p=MU)
    rewards = REWARDS[arms[:, :1]] * REWARDS[arms[:, 1:]]
    inputs = {"sampling_logprobs": torch.tensor(np.log(MU)[arms]), "advantages": torch.tensor(np.tile(rewards, 2))}
    inputs["loss_mask"] = torch.ones_like(inputs["advantages"])
    policy = LOGITS.log_softmax(0)
    true = (policy.exp() * torch.tensor(REWARDS)).sum().item() ** 2
    logprobs = policy[torch.tensor(arms)]
    by_sequence, by_token = (
        -importance_sampling(logprobs, **inputs, level=level)[0].mean().item() for level in ("sequence", "token")
    )
    assert by_sequence == pytest.approx(true, rel=0.02)
    assert abs(by_token - true) > 0.1 * true


def test_a_cap_trades_bias_for_variance():
    arms = np.random.default_rng(4).choice(4, size=(1, 50_000), p=MU)
    inputs = {"sampling_logprobs": torch.tensor(np.log(MU)[arms]), "advantages": torch.tensor(REWARDS[arms])}
    inputs["loss_mask"] = torch.ones_like(inputs["advantages"])
    logprobs = LOGITS.log_softmax(0)[torch.tensor(arms)]
    free, capped = (importance_sampling(logprobs, **inputs, clip_ratio=cap)[0] for cap in (None, 2.0))
    assert capped.var() < free.var()
    assert -capped.mean() < -0.95 * free.mean()
