"""Intervals that hold what they promise."""

import random
import statistics

import pytest

from fettle.training.evaluation import interval


def test_wilson_against_published_values():
    """Newcombe, 1998 (Statistics in Medicine 17), table I: 81 of 263, and 0 of 20."""
    assert interval([1.0] * 81 + [0.0] * 182) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert interval([0.0] * 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_it_covers_the_truth_about_as_often_as_it_says():
    random.seed(0)
    covered = 0
    for _ in range(2000):
        low, high = interval([float(random.random() < 0.9) for _ in range(50)])
        covered += low <= 0.9 <= high
    assert 0.93 <= covered / 2000 <= 0.98


def test_all_equal_rewards_still_leave_doubt():
    low, high = interval([1.0] * 30)
    assert low < 0.9
    assert high == pytest.approx(1.0)


def test_rewards_beyond_one_get_the_normal_interval():
    rewards = [-1.0, 2.0, 3.0, 0.0]
    mean, half = statistics.fmean(rewards), 1.959963984540054 * statistics.stdev(rewards) / 2
    assert interval(rewards) == pytest.approx((mean - half, mean + half))
