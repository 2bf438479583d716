"""The parts of PPO's loss by their documented names, against golden numbers and finite differences."""

import pytest
import torch

from fettle.compat.mrlm.algorithms.ppo import (
    compute_entropy_bonus,
    compute_ppo_loss,
    compute_ppo_total_loss,
    compute_value_loss,
)


@pytest.mark.parametrize(
    ("ratio", "advantage", "paid"), [(1.5, 1, 1.2), (0.5, -1, -0.8), (0.5, 1, 0.5), (1.5, -1, -1.5)]
)
def test_the_surrogate_is_clipped_where_it_would_pay(ratio, advantage, paid):
    loss, metrics = compute_ppo_loss(
        torch.tensor([[ratio]]).log(), torch.zeros(1, 1), torch.tensor([[float(advantage)]])
    )
    assert float(loss) == pytest.approx(-paid)
    assert metrics["diagnostics/clip_fraction"] == float(paid != ratio * advantage)
    assert metrics["diagnostics/approx_kl"] == pytest.approx(ratio - 1 - torch.tensor(ratio).log().item(), rel=1e-5)


def test_values_are_clipped_one_by_one():
    values, old, returns = torch.tensor([[1.0, 1.0]]), torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    # At each token the worse of the two is 0.64 and 1; the worse of the two means would be 0.5.
    assert float(compute_value_loss(values, returns, old, 0.2)) == pytest.approx((0.64 + 1.0) / 4)
    assert float(compute_value_loss(values, returns)) == pytest.approx((0.0 + 1.0) / 4)


def test_entropy_is_of_the_whole_softmax_and_has_a_gradient():
    logits = torch.tensor([[[0.3, -1.0, 0.8]]], dtype=torch.float64, requires_grad=True)
    p = logits.detach().softmax(-1)
    assert float(compute_entropy_bonus(logits.detach())) == pytest.approx(float(-(p * p.log()).sum()))
    assert torch.autograd.gradcheck(compute_entropy_bonus, logits)


def test_the_total_has_every_documented_metric():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5)
    logprobs = logits.log_softmax(-1)[..., 0]
    old, advantages, values, returns = logprobs + 0.3 * torch.randn(2, 3), *torch.randn(3, 2, 3)
    mask = torch.tensor([[1.0, 1, 0], [1, 1, 1]])
    total, metrics = compute_ppo_total_loss(logprobs, old, advantages, values, returns, logits, mask=mask)
    where = mask > 0
    R, V = returns[where], values[where]
    expected = {
        "loss/policy": compute_ppo_loss(logprobs[where][None], old[where][None], advantages[where][None])[0],
        "loss/value": (V - R).square().mean() / 2,
        "loss/entropy": compute_entropy_bonus(logits[where][None]),
        "diagnostics/explained_variance": 1 - (R - V).var(correction=0) / R.var(correction=0),
    }
    assert metrics.keys() == {*expected, "loss/total", "diagnostics/approx_kl", "diagnostics/clip_fraction"}
    for name, number in expected.items():
        assert metrics[name] == pytest.approx(float(number), rel=1e-5), name
    terms = metrics["loss/policy"] + 0.5 * metrics["loss/value"] - 0.01 * metrics["loss/entropy"]
    assert float(total) == metrics["loss/total"] == pytest.approx(terms, rel=1e-5)


def test_what_is_masked_changes_nothing():
    one, other = torch.tensor([[0.1, -0.2]]), torch.tensor([[0.1, torch.inf]])
    mask = torch.tensor([[1.0, 0.0]])
    advantages = torch.ones(1, 2)
    losses = [compute_ppo_loss(x, torch.zeros(1, 2), advantages, mask=mask)[0] for x in (one, other)]
    assert float(losses[0]) == float(losses[1])
