"""AdamW against its own formulas."""

import math

import pytest
import torch
from torch import nn

from fettle.config import AdamW
from fettle.engine.local.optimizer import Optimizer
from fettle.errors import CheckpointError


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float32))


def test_two_steps_follow_the_closed_form():
    """Loshchilov and Hutter, 2017, algorithm 2: decay apart from the gradient, moments bias-corrected."""
    settings = AdamW(learning_rate=0.1, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.5, clip_norm=None)
    weight = parameter(1.0)
    optimizer = Optimizer({"w": weight})
    w, m, v = 1.0, 0.0, 0.0
    for t, gradient in enumerate([0.3, -0.2], start=1):
        weight.grad = torch.tensor([gradient])
        optimizer.step(settings)
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient**2
        w = w * (1 - 0.1 * 0.5) - 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.99**t)) + 1e-8)
        assert weight.item() == pytest.approx(w, rel=1e-5)


def test_the_norm_is_global_and_measured_before_clipping():
    a, b = parameter(0.0, 0.0), parameter(0.0)
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    norm, moved = Optimizer({"a": a, "b": b}).step(AdamW(clip_norm=1.0))
    assert norm == pytest.approx(5.0)
    assert moved


def test_clipping_scales_all_gradients_alike():
    """With beta1 = 0 and one step Adam's step is the sign; with a large eps it shows the gradient's size."""
    settings = AdamW(learning_rate=1.0, beta1=0.0, beta2=0.0, eps=1e6, clip_norm=1.0)
    a, b = parameter(0.0), parameter(0.0)
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([4.0])
    Optimizer({"a": a, "b": b}).step(settings)
    assert (a.item(), b.item()) == (pytest.approx(-0.6e-6, rel=1e-3), pytest.approx(-0.8e-6, rel=1e-3))


def test_a_gradient_within_the_clip_is_left_as_it_is():
    weight = parameter(0.0)
    weight.grad = torch.tensor([0.5])
    Optimizer({"w": weight}).step(AdamW(learning_rate=1.0, beta1=0.0, beta2=0.0, eps=1e6, clip_norm=1.0))
    assert weight.item() == pytest.approx(-0.5e-6, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing(bad):
    weight = parameter(1.0, 2.0)
    optimizer = Optimizer({"w": weight})
    weight.grad = torch.tensor([bad, 1.0])
    _, moved = optimizer.step(AdamW())
    assert not moved
    assert weight.tolist() == [1.0, 2.0]
    assert optimizer.state() == {}
    assert weight.grad is None


def test_state_restores_to_the_same_bits():
    first, second = parameter(1.0, -2.0), parameter(1.0, -2.0)
    one, two = Optimizer({"w": first}), Optimizer({"w": second})
    for gradient in ([0.1, 0.2], [0.3, -0.1]):
        first.grad = torch.tensor(gradient)
        one.step(AdamW())
    second.data.copy_(first.data)
    two.restore(one.state())
    for weight, optimizer in ((first, one), (second, two)):
        weight.grad = torch.tensor([0.5, 0.5])
        optimizer.step(AdamW())
    assert torch.equal(first, second)


def test_foreign_state_is_refused():
    with pytest.raises(CheckpointError, match="exp_avg/other does not belong"):
        Optimizer({"w": parameter(1.0)}).restore({"exp_avg/other": torch.zeros(1)})
