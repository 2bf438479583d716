"""A critic's loss: elementwise, and clipped only where the clip binds."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fettle.config import PPO, Value
from fettle.losses import evaluate
from fettle.losses.value import value


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_without_a_clip_it_is_half_the_squared_error():
    loss, metrics = value(row(1, 3), returns=row(0, 5), old_values=row(9, 9), clip=None)
    assert loss[0].tolist() == [0.5, 2.0]
    assert metrics["value_loss"][0].tolist() == [0.5, 2.0]
    assert not metrics["value_clip_fraction"].any()


def test_the_greater_is_taken_token_by_token_and_not_of_the_means():
    """Two tokens: the first moved past the clip towards its return, the second past it and away."""
    values, returns, old = row(1.0, -1.0), row(1.0, 1.0), row(0.0, 0.0)
    loss, metrics = value(values, returns=returns, old_values=old, clip=0.2)
    plain, clipped = row(0.0, 4.0), row(0.64, 1.44)
    assert loss[0].tolist() == pytest.approx([0.32, 2.0])
    mean_of_max = torch.maximum(plain, clipped).mean() / 2
    max_of_means = torch.maximum(plain.mean(), clipped.mean()) / 2
    assert loss.mean().item() == pytest.approx(mean_of_max.item()) == pytest.approx(1.16)
    assert max_of_means.item() == pytest.approx(1.0)
    assert metrics["value_clip_fraction"][0].tolist() == [1, 0]


def test_a_value_that_has_moved_far_enough_towards_its_return_learns_no_more():
    values = row(1.0, 0.1, -1.0).requires_grad_()
    loss, _ = value(values, returns=row(2.0, 2.0, 2.0), old_values=row(0, 0, 0), clip=0.2)
    assert torch.autograd.grad(loss.sum(), values)[0][0].tolist() == pytest.approx([0.0, -1.9, -3.0])


def test_every_metric_equals_its_numpy_oracle():
    random = np.random.default_rng(0)
    v, r, old = random.normal(size=(3, 6, 7))
    held = old + np.clip(v - old, -0.3, 0.3)
    oracle = {
        "value_loss": np.maximum((v - r) ** 2, (held - r) ** 2) / 2,
        "value_clip_fraction": (np.abs(v - old) > 0.3) & ((held - r) ** 2 > (v - r) ** 2),
    }
    loss, metrics = value(torch.tensor(v), returns=torch.tensor(r), old_values=torch.tensor(old), clip=0.3)
    np.testing.assert_allclose(loss.numpy(), oracle["value_loss"])
    assert set(metrics) == set(oracle)
    for name, expected in oracle.items():
        np.testing.assert_allclose(metrics[name].numpy(), expected, err_msg=name)
    assert 0 < oracle["value_clip_fraction"].mean() < 1


def test_rounding_is_no_clip():
    """``old + (v - old)`` is not always ``v``: where the clip does not bind, nothing is clipped."""
    random = np.random.default_rng(1)
    old, values = (torch.tensor(random.normal(size=(1, 1000)) * 0.05, dtype=torch.float32) for _ in range(2))
    assert (old + (values - old) != values).any()
    _, metrics = value(values, returns=torch.zeros_like(old), old_values=old, clip=1.0)
    assert not metrics["value_clip_fraction"].any()


@pytest.mark.parametrize("clip", [None, 0.2])
def test_the_gradient_is_that_of_finite_differences(clip):
    random = torch.Generator().manual_seed(0)
    values, returns, old = (torch.randn(3, 4, generator=random, dtype=torch.float64) for _ in range(3))
    assert torch.autograd.gradcheck(
        lambda x: value(x, returns=returns, old_values=old, clip=clip)[0], (values.requires_grad_(),)
    )


def test_the_coefficient_stands_outside_alone_or_beside_a_policys_loss():
    said = {"values": row(0.0, 1.0, 2.0), "logprobs": row(0.0, -1.0, -1.0), "entropy": row(0.0, 1.0, 1.0)}
    inputs = {"returns": row(0, 0.9, 4), "old_values": row(0, 0.2, 2), "loss_mask": row(0, 1, 1)}
    inputs |= {"sampling_logprobs": said["logprobs"], "advantages": row(0, 1, -1)}
    plain = [0.5 * (0.2 + 0.3 - 0.9) ** 2, 0.5 * (2 - 4) ** 2]  # the first has moved past the clip
    alone, metrics = evaluate(Value(coefficient=0.3, clip=0.3), said, inputs)
    assert alone[0, 1:].tolist() == pytest.approx([0.3 * x for x in plain])
    assert metrics["value_loss"][0, 1:].tolist() == pytest.approx(plain)
    beside, _ = evaluate(PPO(value=Value(coefficient=0.3, clip=0.3)), said, inputs)
    without, _ = evaluate(PPO(), said, inputs)
    torch.testing.assert_close(beside - without, alone)
