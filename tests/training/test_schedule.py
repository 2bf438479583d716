"""Learning rates in closed form."""

import math

import pytest

from fettle.config import Constant, Cosine, Linear
from fettle.training.schedule import learning_rate


def rates(schedule, steps: int = 11, peak: float = 2.0) -> list[float]:
    return [learning_rate(schedule, peak, step=step, steps=steps) for step in range(steps)]


def test_constant_is_the_peak():
    assert rates(Constant()) == [2.0] * 11


@pytest.mark.parametrize("kind", [Constant, Linear, Cosine])
def test_warm_up_climbs_in_equal_steps_to_the_peak(kind):
    assert rates(kind(warmup_steps=4))[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])


def test_linear_falls_in_equal_steps_to_its_end():
    assert rates(Linear()) == pytest.approx([2.0 * (1 - step / 10) for step in range(11)])
    assert rates(Linear(final=0.5))[-1] == pytest.approx(1.0)


def test_cosine_is_half_a_cosine():
    assert rates(Cosine()) == pytest.approx([1 + math.cos(math.pi * step / 10) for step in range(11)])
    assert rates(Cosine(final=0.1))[-1] == pytest.approx(0.2)
    assert rates(Cosine(warmup_steps=1, final=0.1))[1] == pytest.approx(2.0)


def test_one_step_after_warm_up_is_the_peak():
    assert learning_rate(Cosine(warmup_steps=1), 1.0, step=1, steps=2) == 1.0
