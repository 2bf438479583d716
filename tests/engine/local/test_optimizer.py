"""AdamW over one buffer, against its own formulas and against torch's over each parameter."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from fettle.config import AdamW
from fettle.engine.local.flat import Flat
from fettle.engine.local.optimizer import Optimizer
from fettle.errors import CheckpointError


def laid(**values: Sequence[float] | torch.Tensor) -> Flat:
    return Flat({name: nn.Parameter(torch.as_tensor(v, dtype=torch.float32)) for name, v in values.items()})


def pull(flat: Flat, **gradients: Sequence[float] | torch.Tensor) -> None:
    """Give the named parameters these gradients, the way a loss would."""
    with flat.all_or_nothing():
        for name, value in gradients.items():
            flat.parameters[name].backward(torch.as_tensor(value, dtype=torch.float32))


def test_two_steps_follow_the_closed_form():
    """Loshchilov and Hutter, 2017, algorithm 2: decay apart from the gradient, moments bias-corrected."""
    settings = AdamW(learning_rate=0.1, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.5, clip_norm=None)
    flat = laid(w=[1.0])
    optimizer = Optimizer(flat)
    w, m, v = 1.0, 0.0, 0.0
    for t, gradient in enumerate([0.3, -0.2], start=1):
        pull(flat, w=[gradient])
        optimizer.step(settings)
        m, v = 0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient**2
        w = w * (1 - 0.1 * 0.5) - 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.99**t)) + 1e-8)
        assert flat.parameters["w"].item() == pytest.approx(w, rel=1e-5)


def test_many_steps_equal_torch_over_each_parameter_by_itself():
    random = torch.Generator().manual_seed(0)
    shapes = {"a": (17, 33), "bias": (5,), "b": (64, 9), "scale": (1,)}
    values = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    flat = laid(**{name: value.clone() for name, value in values.items()})
    apart = {name: nn.Parameter(value.clone()) for name, value in values.items()}
    settings = AdamW(learning_rate=0.05, weight_decay=0.1, clip_norm=None)
    optimizer = Optimizer(flat)
    theirs = torch.optim.AdamW(apart.values(), lr=0.05, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for _ in range(5):
        gradients = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
        pull(flat, **gradients)
        for name, parameter in apart.items():
            parameter.grad = gradients[name].clone()
        norm, _ = optimizer.step(settings)
        theirs.step()
        assert norm == pytest.approx(nn.utils.get_total_norm(gradients.values()).item(), rel=1e-6)
    for name, parameter in apart.items():
        torch.testing.assert_close(flat.parameters[name], parameter, rtol=1e-6, atol=1e-7)


def test_the_norm_is_global_and_measured_before_clipping():
    flat = laid(a=[0.0, 0.0], b=[0.0])
    pull(flat, a=[3.0, 0.0], b=[4.0])
    norm, moved = Optimizer(flat).step(AdamW(clip_norm=1.0))
    assert norm == pytest.approx(5.0)
    assert moved


def test_the_norm_of_many_gradients_is_that_of_exact_arithmetic():
    flat = laid(w=torch.zeros(3_000_000))
    gradient = torch.rand(3_000_000, generator=torch.Generator().manual_seed(0))
    pull(flat, w=gradient)
    norm, _ = Optimizer(flat).step(AdamW())
    assert norm == pytest.approx(gradient.double().norm().item(), rel=1e-6)


def test_clipping_scales_all_gradients_alike():
    """With beta1 = 0 and one step Adam's step is the sign; with a large eps it shows the gradient's size."""
    settings = AdamW(learning_rate=1.0, beta1=0.0, beta2=0.0, eps=1e6, clip_norm=1.0)
    flat = laid(a=[0.0], b=[0.0])
    pull(flat, a=[3.0], b=[4.0])
    Optimizer(flat).step(settings)
    a, b = (flat.parameters[name].item() for name in "ab")
    assert (a, b) == (pytest.approx(-0.6e-6, rel=1e-3), pytest.approx(-0.8e-6, rel=1e-3))


def test_a_gradient_within_the_clip_is_left_as_it_is():
    flat = laid(w=[0.0])
    pull(flat, w=[0.5])
    Optimizer(flat).step(AdamW(learning_rate=1.0, beta1=0.0, beta2=0.0, eps=1e6, clip_norm=1.0))
    assert flat.parameters["w"].item() == pytest.approx(-0.5e-6, rel=1e-3)


def test_a_parameter_that_no_loss_reached_moves_as_at_a_gradient_of_zero():
    settings = AdamW(learning_rate=0.1, weight_decay=0.5, clip_norm=None)
    one, other = laid(w=[1.0], idle=[2.0]), laid(w=[1.0], idle=[2.0])
    for flat, gradients in ((one, {"w": [0.3]}), (other, {"w": [0.3], "idle": [0.0]})):
        pull(flat, **gradients)
        Optimizer(flat).step(settings)
    assert torch.equal(one.values, other.values)
    assert one.parameters["idle"].item() == pytest.approx(2.0 * (1 - 0.1 * 0.5))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing(bad):
    flat = laid(w=[1.0, 2.0])
    optimizer = Optimizer(flat)
    pull(flat, w=[bad, 1.0])
    _, moved = optimizer.step(AdamW())
    assert not moved
    assert flat.values.tolist() == [1.0, 2.0]
    assert optimizer.state() == {}
    assert flat.parameters["w"].grad is None


def test_no_gradient_moves_nothing():
    assert Optimizer(laid(w=[1.0])).step(AdamW()) == (0.0, False)


def test_state_restores_to_the_same_bits():
    first, second = laid(w=[1.0, -2.0], m=[[0.5]]), laid(w=[1.0, -2.0], m=[[0.5]])
    one, two = Optimizer(first), Optimizer(second)
    for gradient in ([0.1, 0.2], [0.3, -0.1]):
        pull(first, w=gradient, m=[[1.0]])
        one.step(AdamW())
    second.values.copy_(first.values)
    two.restore(one.state())
    for flat, optimizer in ((first, one), (second, two)):
        pull(flat, w=[0.5, 0.5], m=[[1.0]])
        optimizer.step(AdamW())
    assert torch.equal(first.values, second.values)


def test_state_is_told_parameter_by_parameter():
    """The names and shapes that a checkpoint has."""
    flat = laid(bias=[1.0, 2.0], matrix=[[1.0, 2.0, 3.0]])
    optimizer = Optimizer(flat)
    pull(flat, bias=[1.0, 1.0], matrix=[[1.0, 2.0, 3.0]])
    optimizer.step(AdamW(clip_norm=None, beta1=0.5))
    found = optimizer.state()
    assert {name: list(value.shape) for name, value in found.items()} == {
        "step/bias": [], "exp_avg/bias": [2], "exp_avg_sq/bias": [2],
        "step/matrix": [], "exp_avg/matrix": [1, 3], "exp_avg_sq/matrix": [1, 3],
    }  # fmt: skip
    assert found["exp_avg/matrix"].tolist() == [[0.5, 1.0, 1.5]]
    assert found["step/bias"].item() == 1


def test_a_state_of_torchs_own_optimizer_goes_on_as_it_would_have():
    """What was saved parameter by parameter; one of them had no gradient yet, and begins at zero."""
    w, idle = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([3.0]))
    theirs = torch.optim.AdamW([w, idle], lr=0.1, betas=(0.9, 0.95), weight_decay=0.0)
    for gradient in ([0.1, 0.2], [0.3, -0.1]):
        w.grad = torch.tensor(gradient)
        theirs.step()
    flat = laid(w=w.detach(), idle=idle.detach())
    optimizer = Optimizer(flat)
    optimizer.restore({f"{key}/w": value for key, value in theirs.state[w].items()})
    w.grad = torch.tensor([0.5, 0.5])
    theirs.step()
    pull(flat, w=[0.5, 0.5])
    optimizer.step(AdamW(learning_rate=0.1, clip_norm=None))
    torch.testing.assert_close(flat.parameters["w"], w, rtol=1e-6, atol=1e-7)
    assert flat.parameters["idle"].item() == 3.0


def test_a_step_can_be_taken_back_to_the_bit():
    flat = laid(w=[1.0, -2.0])
    optimizer = Optimizer(flat)
    pull(flat, w=[0.1, 0.2])
    optimizer.step(AdamW())
    before, values = optimizer.copy(), flat.values.clone()
    pull(flat, w=[0.3, 0.2])
    optimizer.step(AdamW())
    assert not torch.equal(flat.values, values)
    optimizer.put_back(before)
    assert optimizer.state()["step/w"].item() == 1


@pytest.mark.parametrize(("name", "shape"), [("exp_avg/other", 1), ("exp_avg/w", 2)])
def test_foreign_state_is_refused(name, shape):
    with pytest.raises(CheckpointError, match=f"{name} does not belong"):
        Optimizer(laid(w=[1.0])).restore({name: torch.zeros(shape)})


def test_a_state_without_a_count_of_steps_is_refused():
    with pytest.raises(CheckpointError, match="does not say how many steps were made"):
        Optimizer(laid(w=[1.0])).restore({"exp_avg/w": torch.zeros(1)})
