"""Coefficients that follow what is measured."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.advantages import adapted, dual_ascent, proportional, quadratic_penalty, quadratic_slope
from fettle.advantages.control import HIGHEST, LOWEST
from fettle.errors import ConfigError, LossInputError


@pytest.mark.parametrize(
    ("measured", "factor"), [(0.0, 0.5), (0.0199, 0.5), (0.0201, 1), (0.03, 1), (0.0449, 1), (0.0451, 2), (9, 2)]
)
def test_ppos_coefficient_halves_below_two_thirds_of_the_target_and_doubles_above_three_halves(measured, factor):
    assert adapted(0.8, measured, target=0.03) == 0.8 * factor


def test_a_coefficient_that_was_halved_for_long_can_still_come_back():
    coefficient = 1.0
    for _ in range(2000):
        coefficient = adapted(coefficient, 0.0, target=0.1)
    assert coefficient == LOWEST
    for _ in range(2000):
        coefficient = adapted(coefficient, 1.0, target=0.1)
    assert coefficient == HIGHEST


@pytest.mark.parametrize(("measured", "change"), [(6.0, 0), (6.6, 0.1), (60.0, 0.2), (5.4, -0.1), (0.0, -0.2)])
def test_the_proportional_controller_moves_by_the_error_but_no_more_than_a_fifth_in_a_horizon(measured, change):
    found = proportional(0.2, measured, target=6.0, horizon=10_000, samples=256)
    assert found == pytest.approx(0.2 * (1 + change * 256 / 10_000))


def test_the_proportional_controller_finds_a_coefficient_that_meets_the_target():
    coefficient = 0.01
    for _ in range(3000):
        coefficient = proportional(coefficient, 1 / coefficient, target=5.0, horizon=1000, samples=64)
    assert 1 / coefficient == pytest.approx(5.0, rel=1e-3)


def test_a_horizon_that_one_batch_could_bring_to_nothing_is_refused():
    with pytest.raises(ConfigError, match="a horizon of 50 is too short for 256 samples"):
        proportional(0.2, 1.0, target=1.0, horizon=50, samples=256)


def test_a_multiplier_rises_while_the_constraint_is_broken_and_rests_at_0():
    assert dual_ascent(1.0, 0.03, limit=0.01, rate=10) == pytest.approx(1.2)
    assert dual_ascent(1.0, 0.005, limit=0.01, rate=10) == pytest.approx(0.95)
    assert dual_ascent(0.01, 0.0, limit=0.01, rate=10) == 0


def test_dual_ascent_finds_the_multiplier_of_a_small_problem():
    """Minimise (x - 3)² where x ≤ 1: the Lagrangian is stationary at x = 1 for the multiplier 4."""
    multiplier = 0.0
    for _ in range(500):
        x = 3 - multiplier / 2
        multiplier = dual_ascent(multiplier, x, limit=1.0, rate=0.5)
    assert (x, multiplier) == (pytest.approx(1.0), pytest.approx(4.0))


def test_the_quadratic_penalty_by_hand():
    """A divergence of 0.05 over a limit of 0.01 costs 0.1 · 0.04², which is 1.6e-4."""
    assert quadratic_penalty(0.05, limit=0.01, coefficient=0.1) == pytest.approx(1.6e-4)
    assert quadratic_penalty(0.01, limit=0.01, coefficient=0.1) == 0
    assert quadratic_penalty(-0.5, limit=0.01, coefficient=0.1) == 0


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0.01, 10))
def test_the_slope_is_the_derivative_of_the_penalty(measured, limit, coefficient):
    step = 1e-6
    above = quadratic_penalty(measured + step, limit=limit, coefficient=coefficient)
    below = quadratic_penalty(measured - step, limit=limit, coefficient=coefficient)
    slope = quadratic_slope(measured, limit=limit, coefficient=coefficient)
    assert slope == pytest.approx((above - below) / (2 * step), abs=2e-5)


def test_the_slope_times_the_gradient_of_the_mean_is_the_gradient_of_the_penalty():
    """So a batch may be split: the slope is known before, and what it multiplies is a sum over tokens."""
    divergences = np.array([0.1, 0.3, 0.05, 0.4])
    slope = quadratic_slope(divergences.mean(), limit=0.1, coefficient=2.0)
    for at in range(4):
        moved = divergences.copy()
        moved[at] += 1e-6
        rise = quadratic_penalty(moved.mean(), limit=0.1, coefficient=2.0)
        rise -= quadratic_penalty(divergences.mean(), limit=0.1, coefficient=2.0)
        assert rise / 1e-6 == pytest.approx(slope / 4, rel=1e-4)


@pytest.mark.parametrize(
    "controlled",
    [
        lambda d: adapted(1.0, d, target=1.0),
        lambda d: proportional(1.0, d, target=1.0, horizon=100, samples=1),
        lambda d: dual_ascent(1.0, d, limit=1.0, rate=1.0),
        lambda d: quadratic_penalty(d, limit=1.0, coefficient=1.0),
        lambda d: quadratic_slope(d, limit=1.0, coefficient=1.0),
    ],
)
def test_a_divergence_that_is_no_number_is_refused(controlled):
    with pytest.raises(LossInputError, match="the measured divergence is nan"):
        controlled(math.nan)
