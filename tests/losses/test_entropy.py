"""The entropy that a policy's loss may carry is that of the whole softmax, and so is its gradient."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fettle.config import PPO
from fettle.engine.local.logprobs import token_logprobs
from fettle.losses import evaluate

TOKENS, VOCABULARY, WIDTH = 5, 7, 4


def model(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(TOKENS, WIDTH, generator=random, dtype=torch.float64)
    weight = torch.randn(VOCABULARY, WIDTH, generator=random, dtype=torch.float64)
    return hidden, weight, torch.randint(VOCABULARY, (TOKENS,), generator=random)


def entropy(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return -(p * np.log(p)).sum(-1)


def loss(hidden: Tensor, weight: Tensor, targets: Tensor, coefficient: float) -> Tensor:
    """Of one sequence on policy without advantages: what is left is the entropy."""
    logprobs, h = token_logprobs(hidden, weight, None, targets, torch.ones(TOKENS, dtype=torch.float64))
    said = {"logprobs": logprobs[None], "entropy": h[None]}
    inputs = {"sampling_logprobs": logprobs.detach()[None], "advantages": torch.zeros(1, TOKENS, dtype=torch.float64)}
    inputs["loss_mask"] = torch.tensor([[0.0, 1, 1, 0, 1]], dtype=torch.float64)
    values, _ = evaluate(PPO(entropy_coefficient=coefficient), said, inputs)
    return (values * inputs["loss_mask"]).sum()


def test_the_term_is_minus_coefficient_times_the_entropy_of_the_full_softmax():
    hidden, weight, targets = model()
    expected = -0.3 * entropy((hidden @ weight.T).numpy())[[1, 2, 4]].sum()
    assert loss(hidden, weight, targets, 0.3).item() == pytest.approx(expected)
    assert loss(hidden, weight, targets, 0.0).item() == 0.0


def test_its_gradient_is_that_of_finite_differences_and_not_zero():
    hidden, weight, targets = model()
    hidden.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(hidden, weight, targets, 1.0), hidden)
    step, differences = 1e-6, np.zeros((TOKENS, WIDTH))
    for at in np.ndindex(TOKENS, WIDTH):
        moved = np.zeros((TOKENS, WIDTH))
        moved[at] = step
        up, down = (entropy((hidden.detach().numpy() + sign * moved) @ weight.numpy().T)[at[0]] for sign in (1, -1))
        differences[at] = -(up - down) / (2 * step)
    differences[[0, 3]] = 0  # masked
    np.testing.assert_allclose(gradient.numpy(), differences, atol=1e-8)
    assert np.abs(gradient.numpy()[[1, 2, 4]]).max() > 0.01


def test_the_sampled_log_probability_is_no_entropy():
    """Minus the mean log-probability of what was drawn has the entropy's value on average, and no expected gradient."""
    logits = torch.tensor([1.0, 0.2, -0.5], dtype=torch.float64, requires_grad=True)
    logprobs, h = token_logprobs(
        logits.expand(3, 3), torch.eye(3, dtype=torch.float64), None, torch.arange(3), torch.ones(3).double()
    )
    chance = logprobs.exp().detach()
    assert (chance * -logprobs).sum().item() == pytest.approx(h[0].item())
    (of_drawn,) = torch.autograd.grad((chance * -logprobs).sum(), logits, retain_graph=True)
    (of_entropy,) = torch.autograd.grad(h[0], logits)
    assert of_drawn.abs().max() < 1e-12
    assert of_entropy.abs().max() > 0.1


def test_a_bonus_flattens_a_policy():
    hidden, weight, targets = model()
    weight = (3 * weight).requires_grad_()
    before = entropy((hidden @ weight.detach().T).numpy())[[1, 2, 4]].sum()
    (gradient,) = torch.autograd.grad(loss(hidden, weight, targets, 0.5), weight)
    after = entropy((hidden @ (weight.detach() - 0.05 * gradient).T).numpy())[[1, 2, 4]].sum()
    assert after > before + 1e-3
